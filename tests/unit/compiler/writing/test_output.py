import os
from pathlib import Path

import pytest

from nncc.compiler.writing.output import check_output, new_folder, replace_folder
from nncc.device_profiles.errors import UsageError


def filled(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("years of work")
    return folder


def test_a_new_or_empty_folder_is_fine(tmp_path: Path):
    check_output(tmp_path / "a" / "b" / "c", force=False)
    (tmp_path / "empty").mkdir()
    check_output(tmp_path / "empty", force=False)


def test_foreign_files_are_named_as_such_and_need_force(tmp_path: Path):
    folder = filled(tmp_path / "docs")
    with pytest.raises(UsageError, match=r"files that nncc did not write.*--force"):
        check_output(folder, force=False)
    check_output(folder, force=True)


def test_a_file_is_not_an_output_folder(tmp_path: Path):
    (tmp_path / "f").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        check_output(tmp_path / "f", force=True)
    with pytest.raises(UsageError, match="is a file"):
        check_output(tmp_path / "f" / "g", force=True)


def test_root_home_and_current_folder_are_never_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    home = filled(tmp_path / "users" / "me")
    monkeypatch.setenv("HOME", str(home))
    inside = filled(tmp_path / "cwd" / "deep")
    monkeypatch.chdir(inside)
    for path in (Path("/"), home, home.parent, inside, inside.parent, Path(".."), Path()):
        with pytest.raises(UsageError, match="will not be replaced"):
            check_output(path, force=True)


def test_a_repository_is_never_replaced(tmp_path: Path):
    filled(tmp_path / "repo" / ".git")
    with pytest.raises(UsageError, match="git repository"):
        check_output(tmp_path / "repo", force=True)


def test_a_folder_that_holds_the_input_is_never_replaced(tmp_path: Path):
    folder = filled(tmp_path / "models")
    (folder / "sub").mkdir()
    model = folder / "sub" / "m.onnx"
    model.write_text("")
    with pytest.raises(UsageError, match=r"it holds the input m\.onnx"):
        check_output(folder, force=True, keep=[model])


def test_a_link_to_a_protected_folder_protects_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    home = filled(tmp_path / "home")
    monkeypatch.setenv("HOME", str(home))
    (tmp_path / "link").symlink_to(home)
    with pytest.raises(UsageError, match="home folder"):
        check_output(tmp_path / "link", force=True)


def test_a_failing_exchange_puts_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    old = filled(tmp_path / "build")
    rename = Path.rename

    def fails(self: Path, to: Path) -> Path:
        if "nncc-new" in self.name:
            raise OSError("the disk left")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="the disk left"), new_folder(old) as fresh:
        replace_folder(fresh, old)
    assert (old / "thesis.txt").read_text() == "years of work"
    assert [p.name for p in tmp_path.iterdir()] == ["build"]


def test_the_new_folder_is_readable_by_whom_the_umask_allows(tmp_path: Path):
    mask = os.umask(0o022)
    try:
        with new_folder(tmp_path / "build") as fresh:
            replace_folder(fresh, tmp_path / "build")
    finally:
        os.umask(mask)
    assert (tmp_path / "build").stat().st_mode & 0o777 == 0o755
