"""Names of classes and of splits, as folders and tables spell them."""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from vit_attn.errors import some_of

SPLIT_WORDS = {
    "train": ("train", "training", "trn", "trainval"),
    "val": ("val", "valid", "validation", "dev", "eval", "evaluation"),
    "test": ("test", "testing", "tst"),
}
"""Words that name a split."""
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
"""Words that say nothing but that something is kept there; ``trainset`` is as good as ``train_set``."""
SPLIT_OF_WORD = {
    word + end: split for split, words in SPLIT_WORDS.items() for word in words for end in ("", *CONTAINERS)
}
SHOWN = 3
"""Groups of names that a remark holds."""
MOST_DIGITS = 1000
"""Digits of a number that is ordered as one; Python itself refuses some thousands of them."""


def describe_look_alikes(names: Iterable[str]) -> list[str]:
    """A remark on names of different classes that look alike: but for case, spaces or noughts before a number.

    >>> describe_look_alikes(["Cat", "cat", "7", "007", "dog"])
    ["classes that look alike: 'Cat' and 'cat', '7' and '007'"]
    """
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(_look(name), []).append(repr(name))
    groups = [" and ".join(each) for each in alike.values() if len(each) > 1]
    return [f"classes that look alike: {some_of(groups, SHOWN)}"] if groups else []


def _look(name: str) -> str:
    """A name without what can hardly be seen in it, and without what is often written around it."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    seen = "".join(each for each in folded if unicodedata.category(each) != "Cf")
    seen = " ".join(re.sub(r"[\s_]+", " ", seen).strip("\"' ").split())
    return re.sub(r"^([0-9]+)\.0*$", r"\1", seen).lstrip("0") or "0" if re.match(r"[0-9]+(\.0*)?$", seen) else seen


def in_natural_order(names: Iterable[str]) -> list[str]:
    """Names in the order in which a person counts: numbers by their value, also within names.

    >>> in_natural_order(["10", "9", "c10", "c2", "-1"])
    ['-1', '9', '10', 'c2', 'c10']
    """
    return sorted(names, key=_counted)


def _counted(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Texts and numbers in turn; the name itself decides between 01 and 1."""
    sign = -1 if re.fullmatch(rf"-[0-9]{{1,{MOST_DIGITS}}}", name) else 1
    parts = re.split(rf"([0-9]{{1,{MOST_DIGITS}}})", name.removeprefix("-") if sign < 0 else name)
    pairs = [(0, sign * int(part), "") if number % 2 else (1, 0, part) for number, part in enumerate(parts) if part]
    return pairs, name


def splits_in(name: str) -> list[str]:
    """The splits whose words a name has.

    >>> splits_in("seg_train"), splits_in("ImagenetVal"), splits_in("train"), splits_in("latest")
    (['train'], ['val'], ['train'], [])
    """
    found = {SPLIT_OF_WORD.get(word) for word in words_of(name)}
    return [split for split in SPLIT_WORDS if split in found]


@lru_cache
def split_of(name: str) -> str | None:
    """The split that a name names, if it is one."""
    found = splits_in(name)
    return found[0] if len(found) == 1 else None


@lru_cache
def is_split_name(name: str) -> bool:
    """Whether a name has no other words than one split's and of what keeps it, as ``test_images`` and ``train``."""
    return split_of(name) is not None and all(word in SPLIT_OF_WORD or word in CONTAINERS for word in words_of(name))


def is_container(name: str) -> bool:
    """Whether a name can hardly be a class's: words of a split and of what keeps it, such as ``test_images``.

    >>> [is_container(name) for name in ("test_images", "trainset", "train", "train_station")]
    [True, True, False, False]
    """
    bare = {word for words in SPLIT_WORDS.values() for word in words}
    return is_split_name(name) and any(word not in bare for word in words_of(name))


def without_split(name: str) -> str:
    """What else a name says than a split and what keeps it, in small letters.

    >>> without_split("cat_Train"), without_split("trainA"), without_split("test_images2")
    ('cat', 'a', '2')
    """
    parts = re.findall(r"[^\W\d_]+|[0-9]+", _parted(name))
    return " ".join(part for part in parts if part not in SPLIT_OF_WORD and part not in CONTAINERS)


def words_of(name: str) -> list[str]:
    """The words in a name, without digits, in small letters.

    >>> words_of("ImagenetVal_2012")
    ['imagenet', 'val']
    """
    return re.findall(r"[^\W\d_]+", _parted(name))


def _parted(name: str) -> str:
    """A name in small letters, with a space where a capital began a word."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFC", name)).casefold()
