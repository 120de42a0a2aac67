// @ts-check
/** The terms of the page: what each means in two lines, and its paper. Longer: docs/methods.md. No DOM in here. */

/** @typedef {{name: string, text: string, papers?: [string, string][]}} Term papers: author and year, arXiv id */

/** @type {Record<string, Term>} */
const METHODS = {
  method: {
    name: "a method",
    text: "How the map is computed. Class-specific methods ask what made the network predict a class; the others show attention, which is the same for every class.",
    papers: [["Jain & Wallace 2019", "1902.10186"]],
  },
  raw: {
    name: "raw attention",
    text: "The softmax weights of one layer, as the network used them. Each row sums to 1. Earlier layers have mixed the tokens before, so a patch is no longer only its own pixels.",
    papers: [["Vaswani 2017", "1706.03762"], ["Dosovitskiy 2020", "2010.11929"]],
  },
  rollout: {
    name: "attention rollout",
    text: "Attention followed through all layers down to the patches: half attention, half identity (for the residual connection), layers multiplied. It ignores values and MLPs.",
    papers: [["Abnar & Zuidema 2020", "2005.00928"]],
  },
  relevance: {
    name: "relevance",
    text: "Attention weighted by the gradients of a class's logit, positive parts only, followed through all layers. It has no unit: compare values within one map.",
    papers: [["Chefer 2021", "2103.15679"]],
  },
  gradient_rollout: {
    name: "gradient rollout",
    text: "Attention rollout of attention weighted by the gradients of a class's logit, positive parts only. It has no unit.",
    papers: [["Chefer 2020", "2012.09838"]],
  },
  legrad: {
    name: "LeGrad",
    text: "The gradient of a class's logit with respect to the attention weights of each layer, positive parts only, summed over layers. It has no query.",
    papers: [["Bousselham 2024", "2404.03214"]],
  },
  value_weighted: {
    name: "value-weighted attention",
    text: "Attention times the length of the value vectors that it mixes: a token with much attention and a short value adds little.",
    papers: [["Kobayashi 2020", "2004.10102"]],
  },
  target: {
    name: "the target class",
    text: "The class whose logit a class-specific map explains: the predicted one unless another is chosen, whether the prediction is right or not.",
    papers: [["Chefer 2021", "2103.15679"]],
  },
};

/** @type {Record<string, Term>} */
const TOKENS = {
  patch: {
    name: "a patch",
    text: "A square of the image. The network cuts the image into patches and turns each into a vector, its token. N counts all tokens.",
    papers: [["Dosovitskiy 2020", "2010.11929"]],
  },
  query: {
    name: "the query",
    text: "The token whose attention is shown: a token's query vector is compared with every token's key. Click a patch or a tile to make it the query. “attends to” shows its row, “attended by” its column.",
    papers: [["Vaswani 2017", "1706.03762"]],
  },
  pooled: {
    name: "the pooled row",
    text: "The row of attention that reaches the classifier: that of CLS, the mean of all patches' rows, or that of a pooling attention, as the network pools.",
    papers: [["Dosovitskiy 2020", "2010.11929"], ["Zhai 2021", "2106.04560"]],
  },
  prefix: {
    name: "a prefix token",
    text: "A token that is no patch: CLS, which gathers what is classified, and registers (R1, R2, …), which give the network room for global information.",
    papers: [["Dosovitskiy 2020", "2010.11929"], ["Darcet 2023", "2309.16588"]],
  },
  sinks: {
    name: "an attention sink",
    text: "A token that heads attend to whatever the image shows: in nine of ten images it gets ten times uniform attention (or half of all). Leaving it out changes no other value.",
    papers: [["Xiao 2023", "2309.17453"], ["Gu 2024", "2410.10781"]],
  },
  uniformly: {
    name: "uniform attention",
    text: "1/N: what each of N tokens would get if attention went to all alike. Colour scales of attention reach at least four times that, so that a map that is nearly uniform looks so.",
  },
};

/** @type {Record<string, Term>} */
const HEADS = {
  layer: {
    name: "a layer",
    text: "One block of the network: attention, then an MLP. Layer 1 is next to the image. Rollout is shown up to a layer, relevance through all of them.",
    papers: [["Dosovitskiy 2020", "2010.11929"]],
  },
  fusion: {
    name: "head fusion",
    text: "Each layer has several heads, each with attention of its own. One map of all is their mean, maximum or minimum; under the last two rows do not sum to 1.",
    papers: [["Vaswani 2017", "1706.03762"], ["Abnar & Zuidema 2020", "2005.00928"]],
  },
  entropy: {
    name: "entropy",
    text: "How spread out a head's attention is, as a mean over queries, in nats: 0 if each query attends to one token, ln N if to all alike. From 97 % of ln N on, a head is called uniform.",
    papers: [["Clark 2019", "1906.04341"]],
  },
  distance: {
    name: "attention distance",
    text: "How far a patch attends, in pixels of the image: distances between patch centres weighted by attention. Small means local, as a convolution is.",
    papers: [["Dosovitskiy 2020", "2010.11929"], ["Raghu 2021", "2108.08810"]],
  },
  sink: {
    name: "sink mass",
    text: "The largest fraction of a head's attention that one token gets, averaged over queries. From one half on, a head is called concentrated.",
    papers: [["Gu 2024", "2410.10781"]],
  },
  matrix: {
    name: "the matrix",
    text: "Every token against every token: a row is a query and what it attends to, a column is a key and what attends to it. The first rows and columns are prefix tokens.",
    papers: [["Vaswani 2017", "1706.03762"]],
  },
};

/** @type {Record<string, Term>} */
const PREDICTING = {
  logit: {
    name: "a logit",
    text: "The number that the network computes for a class: the larger, the more the picture is of that class. Softmax turns the logits of all classes into probabilities.",
  },
  probability: {
    name: "the probability of a class",
    text: "Softmax of the logits over all classes of the network: it sums to 1. It says how the network divides its belief among the classes it knows, not how sure one may be.",
    papers: [["Guo 2017", "1706.04599"]],
  },
  cut: {
    name: "a cut",
    text: "A patch, a head, or the attention of one token to another is taken out of the running network, and the picture is predicted again: what changes depended on it.",
    papers: [["Michel 2019", "1905.10650"]],
  },
};

/** @type {Record<string, Term>} */
const JUDGING = {
  faithfulness: {
    name: "deletion and insertion",
    text: "A test of the map: patches are taken away (or put back) in its order, and the probability of the predicted class is averaged on the way. A good map has low deletion and high insertion.",
    papers: [["Petsiuk 2018", "1806.07421"]],
  },
  try: {
    name: "a try",
    text: "The three patches that the map ranks first are cut, and as many at random, eight times. If the class loses no more by the first than by chance, the map has shown nothing here.",
    papers: [["Geva 2023", "2304.14767"]],
  },
  baselines: {
    name: "a baseline",
    text: "An order of patches that does not depend on the network: at random, or the centre first. A map that is not better than both has shown nothing.",
    papers: [["Adebayo 2018", "1810.03292"]],
  },
  truth: {
    name: "ground truth",
    text: "Regions that the data set knows, such as the object or the part that decides the class. The answer region has a solid outline, others are dashed.",
  },
  compare: {
    name: "a comparison",
    text: "Two steps, or two runs on the same image: A is pinned, B is what you go to. Both have one colour scale, and B − A is drawn where the two can be subtracted.",
  },
};

/** The terms in the order of the guide: headings, and terms by key. @type {[string, Record<string, Term>][]} */
export const CHAPTERS = [["Methods", METHODS], ["Tokens", TOKENS], ["Layers and heads", HEADS], ["Predictions", PREDICTING], ["Judging a map", JUDGING]];

/** @type {Record<string, Term>} */
export const TERMS = Object.assign({}, ...CHAPTERS.map(([, terms]) => terms));

/** The term that explains a method: its own, or what a method is. @param {string} method */
export function termOf(method) {
  return method in METHODS ? method : "method";
}
