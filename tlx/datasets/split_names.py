"""What the names of folders say: the split that a name speaks of, in any usual spelling."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

# The words that name a split. `eval` is the test split, or where there is another one, the validation split.
WORDS = {
    **dict.fromkeys(("train", "training", "trn", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "validating", "dev", "development"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "holdout", "heldout"), "test"),
    **dict.fromkeys(("eval", "evaluation", "evaluate"), "eval"),
    # In other languages, where the word means nothing else.
    **dict.fromkeys(
        ("训练", "训练集", "訓練", "学習", "훈련", "학습", "обучение", "обучающая", "trainingsdaten", "trainingsbilder",
         "entrenamiento", "entraînement", "entrainement", "apprentissage", "treino", "treinamento"), "train",
    ),
    **dict.fromkeys(
        ("验证", "验证集", "検証", "검증", "валидация", "validierung", "validierungsdaten", "validierungsbilder",
         "validación", "validacion", "validação", "validacao"), "val",
    ),
    **dict.fromkeys(
        ("测试", "测试集", "テスト", "테스트", "тест", "тестовая", "testdaten", "testbilder", "teste"), "test",
    ),
}  # fmt: skip
# Words beside it that say nothing: training_set, train_images, my-data-train, cross_validation.
PLAIN = frozenset((
    "set", "sets", "data", "dataset", "datasets", "image", "images", "img", "imgs", "photo", "photos",
    "picture", "pictures", "pic", "pics", "folder", "folders", "dir", "split", "splits", "part", "file",
    "files", "jpg", "jpeg", "png", "all", "full", "raw", "original", "final", "new", "small", "copy",
    "cropped", "crops", "resized", "my", "the", "of", "for", "v", "cross",
))  # fmt: skip
# What other tasks have beside their images.
LABELS = frozenset((
    "label", "labels", "annotation", "annotations", "mask", "masks", "box", "boxes", "bbox", "bboxes",
    "groundtruth", "gt",
))  # fmt: skip
# What people have beside their splits: seg_pred, single_prediction, sample_submission.
BESIDE = LABELS | frozenset((
    "seg", "segmentation", "extra", "unlabeled", "unlabelled", "pred", "prediction", "predictions",
    "single", "sample", "samples", "submission",
))  # fmt: skip


@dataclass(frozen=True)
class FolderName:
    """What a folder's name says: the split, and the words that are left once that and `PLAIN` words are taken out."""

    split: str
    rest: tuple[str, ...] = ()


def named(name: str) -> FolderName | None:
    """Which split a folder's name speaks of, in any usual spelling; None for none, or for several.

    `Train`, `test-set`, `seg_train`, `1_train`, `TrainImages`, `testdata`, `train2017`, `flowers (test)`.
    """
    found, rest = set[str](), list[str]()
    words = words_of(name)
    for first, second in zip(words, [*words[1:], ""], strict=False):
        if (first, second) in (("hold", "out"), ("held", "out")):
            found.add("test")
        elif split := _split_in(first):
            found.add(split)
        elif first not in PLAIN and first != "out":
            rest.append(first)
    if found == {"train", "val"}:  # train_val: what trains and what validates in one
        found = {"train"}
    return FolderName(found.pop(), tuple(rest)) if len(found) == 1 else None


def words_of(name: str) -> list[str]:
    """The words of a name, in lower case, without numbers: `1_trainImages` → `train`, `images`."""
    letters = re.findall(r"[^\W\d_]+", unicodedata.normalize("NFC", name))
    return [word.lower() for run in letters for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[^A-Z]+|[A-Z]", run)]


def _split_in(word: str) -> str | None:
    """The split of one word, which may be grown together with a plain one: `trainset`, `imgtest`."""
    if word in WORDS:
        return WORDS[word]
    for known, split in WORDS.items():
        if len(known) > 2 and (
            (word.startswith(known) and word.removeprefix(known) in PLAIN)
            or (word.endswith(known) and word.removesuffix(known) in PLAIN)
        ):
            return split
    return None


def several_splits(names: Iterable[str]) -> bool:
    """Whether two of the names differ in their split alone: `train` and `test`, `trainA` and `testA`."""
    splits = dict[tuple[str, ...], str]()
    known = [about for name in names if (about := named(name))]
    return any(splits.setdefault(about.rest, about.split) != about.split for about in known)


def plain(name: str, words: frozenset[str]) -> bool:
    """Whether the name consists of such words (a number has none)."""
    return bool(words_of(name)) and set(words_of(name)) <= words
