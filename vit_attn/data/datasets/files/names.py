"""Recognition of split names, and comparison and order of class names."""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from vit_attn.data.datasets.remarks import Doubt
from vit_attn.errors import some_of

SPLIT_WORDS = {
    "train": ("train", "training", "trn", "trainval"),
    "val": ("val", "valid", "validation", "dev", "eval", "evaluation"),
    "test": ("test", "testing", "tst"),
}
"""Words for each split."""
CONTAINERS = (
    "set",
    "sets",
    "split",
    "data",
    "dataset",
    "images",
    "image",
    "imgs",
    "img",
    "pictures",
    "photos",
    "folder",
)
"""Words that may surround a split's word without another meaning, also joined to it, as in ``trainset``."""
SPLIT_OF_WORD = {
    word + end: split for split, words in SPLIT_WORDS.items() for word in words for end in ("", *CONTAINERS)
}
SHOWN = 3
"""Most groups of names in a remark."""
MOST_DIGITS = 1000
"""Most digits of a number that is ordered by value; Python refuses to convert several thousand."""


def describe_look_alikes(names: Iterable[str]) -> list[str]:
    """Remark on class names that differ only in case, spaces or leading zeros.

    >>> describe_look_alikes(["Cat", "cat", "7", "007", "dog"])
    ["classes that look alike: 'Cat' and 'cat', '7' and '007'"]
    """
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(_fold(name), []).append(repr(name))
    groups = [" and ".join(each) for each in alike.values() if len(each) > 1]
    return [Doubt(f"classes that look alike: {some_of(groups, SHOWN)}")] if groups else []


def _fold(name: str) -> str:
    """Fold a name: without case, invisible characters, surrounding quotes and leading zeros."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    seen = "".join(each for each in folded if unicodedata.category(each) != "Cf")
    seen = " ".join(re.sub(r"[\s_]+", " ", seen).strip("\"' ").split())
    return re.sub(r"^([0-9]+)\.0*$", r"\1", seen).lstrip("0") or "0" if re.match(r"[0-9]+(\.0*)?$", seen) else seen


def in_natural_order(names: Iterable[str]) -> list[str]:
    """Sort names naturally: numbers by their value, also within names.

    >>> in_natural_order(["10", "9", "c10", "c2", "-1"])
    ['-1', '9', '10', 'c2', 'c10']
    """
    return sorted(names, key=_natural_key)


def _natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key: texts and numbers in turn; the name itself decides between 01 and 1."""
    sign = -1 if re.fullmatch(rf"-[0-9]{{1,{MOST_DIGITS}}}", name) else 1
    parts = re.split(rf"([0-9]{{1,{MOST_DIGITS}}})", name.removeprefix("-") if sign < 0 else name)
    pairs = [(0, sign * int(part), "") if number % 2 else (1, 0, part) for number, part in enumerate(parts) if part]
    return pairs, name


def splits_in(name: str) -> list[str]:
    """Splits whose words occur in a name.

    >>> splits_in("seg_train"), splits_in("ImagenetVal"), splits_in("train"), splits_in("latest")
    (['train'], ['val'], ['train'], [])
    """
    found = {SPLIT_OF_WORD.get(word) for word in words_of(name)}
    return [split for split in SPLIT_WORDS if split in found]


@lru_cache
def split_of(name: str) -> str | None:
    """The only split whose words occur in a name; None if there is none or several."""
    found = splits_in(name)
    return found[0] if len(found) == 1 else None


@lru_cache
def is_split_name(name: str) -> bool:
    """Tell if a name consists of one split's words and of container words, as ``test_images`` and ``train``."""
    return split_of(name) is not None and all(word in SPLIT_OF_WORD or word in CONTAINERS for word in words_of(name))


def is_container(name: str) -> bool:
    """Tell if a name is a split's with a container word, such as ``test_images``, and hardly a class's.

    >>> [is_container(name) for name in ("test_images", "trainset", "train", "train_station")]
    [True, True, False, False]
    """
    bare = {word for words in SPLIT_WORDS.values() for word in words}
    return is_split_name(name) and any(word not in bare for word in words_of(name))


def without_split(name: str) -> str:
    """Rest of a name without the words of splits and containers, in lower case.

    >>> without_split("cat_Train"), without_split("trainA"), without_split("test_images2")
    ('cat', 'a', '2')
    """
    parts = re.findall(r"[^\W\d_]+|[0-9]+", _spaced(name))
    return " ".join(part for part in parts if part not in SPLIT_OF_WORD and part not in CONTAINERS)


def words_of(name: str) -> list[str]:
    """Words of a name without digits, in lower case.

    >>> words_of("ImagenetVal_2012")
    ['imagenet', 'val']
    """
    return re.findall(r"[^\W\d_]+", _spaced(name))


def _spaced(name: str) -> str:
    """A name in lower case, with a space before each capital that began a word."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFC", name)).casefold()
