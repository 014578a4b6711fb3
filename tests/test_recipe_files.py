"""A user's recipe file stands wherever the name of a recipe may: every command, the round trip, and refusals that name the file."""

import json

import pytest

import mezzotint as mz
from mezzotint.cli import main
from mezzotint.recipes import Named, named_or_file, read


def test_a_file_gives_back_what_was_written(tmp_path):
    mine = Named(mz.Recipe(gen_length=64, cache=mz.DualCache()), "measured at home", "swift")
    file = tmp_path / "other.json"
    file.write_text(json.dumps(mine.to_dict()))
    assert read(file) == named_or_file(str(file)) == mine
    file.write_text(mine.recipe.to_json())
    assert read(file) == Named(mine.recipe, "", "other")
    assert named_or_file("plain").recipe == mz.named("plain")


def test_only_the_command_line_reads_files(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text("{}")
    with pytest.raises(ValueError, match="unknown"):
        mz.named(str(file))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nothing", "Expecting value"),
        ("[]", "object of fields"),
        ('{"recipe": {"gen_lenght": 3}}', "gen_lenght"),
        ('{"recipe": 3}', "object of fields"),
        ('{"recipe": {}, "author": "me"}', "author"),
        ('{"recipe": {}, "name": 3}', "name=3"),
        ('{"gen_length": 100}', "gen_length=100"),
        ('{"commit": "best"}', "commit='best'"),
    ],
)
def test_files_that_are_refused(tmp_path, text, told):
    file = tmp_path / "mine.json"
    file.write_text(text)
    with pytest.raises(ValueError, match="is not a recipe file") as error:
        read(file)
    assert told in str(error.value)
    assert "mine.json" in str(error.value)


def test_commands_take_files(tmp_path, capsys):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"name": "swift", "recipe": {"gen_length": 16, "block_length": 16, "commit": "threshold:tau=0.5"}}))
    assert main(["generate", "Copy these words: amber", "--recipe", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"]["commit"] == "threshold:tau=0.5"
    assert main(["demo", "--questions", "1", "--recipes", f"plain,{file}", "--json"]) == 0
    assert str(file) in json.loads(capsys.readouterr().out)["recipes"]
    assert main(["generate", "hi", "--recipe", str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err
