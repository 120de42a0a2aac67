// @ts-check
/** Entry of `vit-attn explore`: the tab's page on the live server. */

import { render } from "./index.js";

render();
