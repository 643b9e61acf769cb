import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from frostline.data.read import read_data, read_labelled
from frostline.data.table import read_labelled_table, read_table
from frostline.errors import DataError


def table(folder: Path, text: str, name: str = "data.csv") -> Path:
    for image in "1234":
        (folder / f"{image}.jpg").write_text(image)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_a_plain_table(tmp_path: Path):
    path = table(tmp_path, f"\ufefflabel,path,note\nb,1.jpg,x\na,{tmp_path / '2.jpg'},\n\n")
    manifest = read_table(path)
    assert manifest.classes == ("a", "b")
    assert [(r.path, r.label, r.split, r.group) for r in manifest.records] == [
        (tmp_path / "1.jpg", 1, None, None),
        (tmp_path / "2.jpg", 0, None, None),
    ]


def test_splits_and_groups(tmp_path: Path):
    path = table(tmp_path, "path,label,split,group\n1.jpg,a,train,p\n2.jpg,b,train,\n3.jpg,a,valid,q\n4.jpg,b,test,q\n")
    assert [(r.split, r.group) for r in read_table(path).records] == [("train", "p"), ("train", None), ("val", "q"), ("test", "q")]


@pytest.mark.parametrize("labels", [["7", "08"], ["NA", "null"], ["True", " a"]])
def test_labels_are_text_as_written(tmp_path: Path, labels: list[str]):
    path = table(tmp_path, f"path,label\n1.jpg,{labels[0]}\n2.jpg,{labels[1]}\n")
    assert read_table(path).classes == tuple(sorted(labels))


REFUSED = {
    "empty": ("", "no column path and no column label"),
    "no rows": ("path,label\n", "no rows"),
    "no label column": ("path,labels\n1.jpg,a\n", "no column label, found path, labels; did you mean labels"),
    "no path column": ("file,label\n1.jpg,a\n", "no column path"),
    "column twice": ("path,label,label\n1.jpg,a,b\n", "there twice"),
    "empty label": ("path,label\n1.jpg,a\n2.jpg, \n", "row 2 has an empty label"),
    "empty path": ("path,label\n,a\n", "row 1 has an empty path"),
    "short row": ("path,label\n1.jpg,a\n2.jpg\n", "row 2 has 1 cells, expected 2"),
    "unknown split": ("path,label,split\n1.jpg,a,tarin\n", "row 1 has the unknown split tarin; did you mean train"),
    "missing files": ("path,label\n1.jpg,a\nx.jpg,b\ny.jpg,b\n", "2 of 3 files are missing, first in row 2"),
    "one class": ("path,label\n1.jpg,a\n2.jpg,a\n", "one class only"),
    "twins": ("path,label\n1.jpg,\u00e9\n2.jpg,e\u0301\n", "two Unicode forms"),
    "test knows more": ("path,label,split\n1.jpg,a,train\n2.jpg,b,train\n3.jpg,c,test\n", "unknown to training: c"),
    "nothing to train on": ("path,label,split\n1.jpg,a,val\n2.jpg,b,val\n", "no rows to train on"),
    "broken quotes": ('path,label\n"1.jpg"x,a\n', "cannot be read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path: Path, name: str):
    text, fact = REFUSED[name]
    with pytest.raises(DataError) as caught:
        read_table(table(tmp_path, text))
    assert fact in str(caught.value)
    assert "data.csv" in str(caught.value)


def test_not_there_not_utf8_not_a_table(tmp_path: Path):
    with pytest.raises(DataError, match="no such file"):
        read_table(tmp_path / "data.csv")
    with pytest.raises(DataError, match="unknown kind of table"):
        read_table(table(tmp_path, "path,label\n", "data.xlsx"))
    (tmp_path / "latin.csv").write_bytes(b"path,label\n1.jpg,caf\xe9\n")
    with pytest.raises(DataError, match="is not UTF-8 text"):
        read_table(tmp_path / "latin.csv")


def test_parquet_equals_csv(tmp_path: Path):
    csv = table(tmp_path, "path,label,split\n1.jpg,1,train\n2.jpg,2,train\n3.jpg,1,val\n")
    columns = {"path": ["1.jpg", "2.jpg", "3.jpg"], "label": [1, 2, 1], "split": ["train", "train", "val"], "more": [0, 0, 0]}
    pq.write_table(pa.table(columns), tmp_path / "data.parquet")
    assert read_table(tmp_path / "data.parquet") == read_table(csv)


def test_parquet_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_table(table(tmp_path, "PAR1 not", "data.parquet"))
    pq.write_table(pa.table({"path": ["1.jpg"], "label": [None]}), tmp_path / "data.parquet")
    with pytest.raises(DataError, match="row 1 has an empty label"):
        read_table(tmp_path / "data.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match=r'pip install "frostline\[parquet\]"'):
        read_table(tmp_path / "data.parquet")


def test_labelled(tmp_path: Path):
    path = table(tmp_path, "path,label,split\n1.jpg,b,train\n2.jpg,b,valid\n3.jpg,b,test\n")
    manifest = read_labelled_table(path, ("a", "b"))
    assert [(r.path.name, r.label, r.split) for r in manifest.records] == [("3.jpg", 1, None)]
    assert "measured on the test rows" in manifest.notes[0]
    assert len(read_labelled_table(table(tmp_path, "path,label\n1.jpg,b\n2.jpg,b\n"), ("a", "b"))) == 2


@pytest.mark.parametrize(
    ("text", "fact"), [("path,label\n1.jpg,c\n", "unknown to training: c"), ("path,label,split\n1.jpg,a,train\n", "only train rows")]
)
def test_labelled_refused(tmp_path: Path, text: str, fact: str):
    with pytest.raises(DataError, match=fact):
        read_labelled_table(table(tmp_path, text), ("a", "b"))


def test_read_data_takes_either_and_a_separate_val(tmp_path: Path):
    for name in ("val/b", "data.csv/a", "data.csv/b"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "1.jpg").write_text(name)
    csv = table(tmp_path, "path,label,split\n1.jpg,a,train\n2.jpg,b,train\n3.jpg,b,test\n", "list.csv")
    assert len(read_data(tmp_path / "data.csv")) == 2  # a folder, whatever its name
    assert len(read_labelled(csv, ("a", "b"))) == 1
    manifest = read_data(tmp_path / "data.csv", tmp_path / "val")
    assert [(r.label, r.split) for r in manifest.records] == [(0, "train"), (1, "train"), (1, "val")]
    assert [r.split for r in read_data(csv, tmp_path / "val").records] == ["train", "train", "test", "val"]


def test_val_beside_a_val_of_its_own(tmp_path: Path):
    path = table(tmp_path, "path,label,split\n1.jpg,a,train\n2.jpg,b,train\n3.jpg,b,val\n")
    with pytest.raises(DataError, match="has validation images of its own"):
        read_data(path, path)
