"""Make .venv what pyproject.toml and constraints.txt ask for; say one line a step, and nothing when it already is.

    python3 tools/env.py           the environment of `make`, in .venv
    python3 tools/env.py --here    what a reader of the notebooks needs, into the environment of this python3

Standard library only, and no newer syntax than Python 2's, so that an old interpreter prints advice rather than a
SyntaxError.  The stamp in .venv holds a digest of what was asked for, not a time: a checkout or a copy that
touches files installs nothing, and needs no network.
"""
from __future__ import print_function

import hashlib
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
STAMP = os.path.join(VENV, "mspace-stamp")
OLDEST, NEWEST = (3, 11), (3, 14)
EXTRAS = ("book", "test", "distributed")
READER = ("chapters", "lab")
ALONE = ("minilm",)  # extras of which only the files are read: what they ask for beside them is not installed
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
INSTALL_PYTHON = {
    "darwin": "`brew install python@3.13`, or the installer at python.org",
    "win32": "the installer at python.org",
}.get(sys.platform, "`sudo apt install python3 python3-venv`, your system's packages, or python.org")


class Stop(Exception):
    """What the user should read instead of a traceback."""


def say(line):
    print(line)
    sys.stdout.flush()


def python_of(venv):
    """The interpreter inside an environment; packages are run as modules, since shebangs break at a space."""
    return os.path.join(venv, *(("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")))


# -- what is needed of the interpreter that runs this file


def refuse_old(version, executable):
    if tuple(version[:2]) < OLDEST:
        raise Stop(
            "mspace needs Python {}.{} or newer, and {} is {}.{}. Install one ({}) and run make again, "
            "or name it: make PYTHON=/path/to/python3.".format(
                OLDEST[0], OLDEST[1], executable, version[0], version[1], INSTALL_PYTHON
            )
        )


def refuse_without_venv(version):
    """Debian ships Python without venv and ensurepip; ask before `-m venv` fails half-way."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as e:
        raise Stop(
            "This Python {0}.{1} has no {2} module, so it can make no environment. On Debian and Ubuntu run "
            "`sudo apt install python{0}.{1}-venv`; elsewhere install Python from python.org. Then run make "
            "again.".format(version[0], version[1], getattr(e, "name", None) or "venv")
        )


# -- what is wanted, and whether it is there


def wanted():
    """A digest of everything an installation depends on; the folder too, for the package is linked to it."""
    parts = [ROOT, os.environ.get("TORCH_INDEX", "")]
    for name in ("constraints.txt", "pyproject.toml"):
        with open(os.path.join(ROOT, name), "rb") as f:
            parts.append(hashlib.sha256(f.read().replace(b"\r\n", b"\n")).hexdigest())
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def stamp():
    """The digest that .venv was made from; None when there is none or its interpreter no longer starts."""
    try:
        with open(STAMP) as f:
            made_from = f.read().strip()
        with open(os.devnull, "w") as null:
            alive = subprocess.call([python_of(VENV), "-c", ""], stdout=null, stderr=null) == 0
    except (OSError, IOError):
        return None
    return made_from if alive else None


def write_stamp(text):
    with open(STAMP + ".part", "w") as f:
        f.write(text + "\n")
    os.replace(STAMP + ".part", STAMP)


# -- the steps


def run(python, *args):
    """One command of the environment's Python; its output passes through."""
    subprocess.check_call([python] + list(args), cwd=ROOT)


def pip_install(python, *args):
    pip = ("-m", "pip", "--disable-pip-version-check", "--no-input")
    run(python, *(pip + ("install", "-qq", "-c", "constraints.txt") + args))


def user_has_index(python):
    """Has the user told pip where to look (a mirror, an air-gapped folder)?  Then that is where torch comes from."""
    out = subprocess.check_output([python, "-m", "pip", "config", "list"], cwd=ROOT)
    keys = [line.split("=")[0] for line in out.decode("utf-8", "replace").splitlines()]
    keys += [k.replace("_", "-").lower() for k in os.environ if k.startswith("PIP_") and os.environ[k]]
    return any(re.search(r"(index-url|find-links|no-index)$", k) for k in keys)


def pinned_torch():
    with open(os.path.join(ROOT, "constraints.txt")) as f:
        return re.search(r"^torch==\S+", f.read(), re.M).group()


def install_torch(python):
    """First and alone, a CPU build where one is offered: the default wheel on Linux brings gigabytes of CUDA."""
    torch, index = pinned_torch(), os.environ.get("TORCH_INDEX")
    if index:
        # --no-deps: that index has its own few versions of what torch needs; ours come with the rest
        return pip_install(python, "--no-deps", "--index-url", index, torch)
    if sys.platform.startswith("linux") and not user_has_index(python):
        options = ("--no-deps", "--retries", "1", "--timeout", "20", "--index-url", CPU_INDEX)
        try:
            return pip_install(python, *(options + (torch,)))
        except subprocess.CalledProcessError:
            say("      no CPU build at {}; taking the default one".format(CPU_INDEX))
    return pip_install(python, torch)


def project():
    import tomllib

    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as f:
        return tomllib.load(f)["project"]


def extras(names):
    """What extras ask for; one that asks for another of this package, mspace[chapters], is followed."""
    found = []
    for requirement in (r for name in names for r in project()["optional-dependencies"][name]):
        own = re.match(r"mspace\[([\w, -]+)\]$", requirement)
        found += extras(re.split(r"\s*,\s*", own.group(1))) if own else [requirement]
    return found


def requirements(names):
    """The package's dependencies and extras, so that one resolver run sees them all, and torch stays as it is."""
    return project()["dependencies"] + extras(names)


def make_venv():
    shutil.rmtree(VENV, ignore_errors=True)
    subprocess.check_call([sys.executable, "-m", "venv", VENV])


def steps(python, names, fresh):
    def pip(*args):
        return lambda: pip_install(python, *args)

    yield "torch" + (" (about 200 MB)" if fresh else ""), lambda: install_torch(python)
    yield "the pinned packages", pip("setuptools", *requirements(names))
    yield "a network to shrink" + (" (about 90 MB)" if fresh else ""), pip("--no-deps", *extras(ALONE))
    yield "mspace itself, linked to this folder", pip("--no-deps", "--no-build-isolation", "-e", ".")


def take(todo, on_failure=lambda: None):
    for i, (what, do) in enumerate(todo, 1):
        say("[{}/{}] {}".format(i, len(todo), what))
        try:
            do()
        except (subprocess.CalledProcessError, OSError) as e:
            if do is not make_venv:
                on_failure()
            raise Stop(advice(what, e))


def install_here():
    """Add to the environment that runs this file, whose packages stay where the pinned ones allow."""
    take(list(steps(sys.executable, READER, fresh=True)))


def install():
    """Bring .venv up to date.  A killed run leaves no stamp, and the next one starts from nothing."""
    target, found = wanted(), stamp()
    if found == target:
        return
    refuse_without_venv(sys.version_info)
    if found is not None:
        os.remove(STAMP)
    todo = list(steps(python_of(VENV), EXTRAS, fresh=found is None))
    if found is None:
        todo.insert(0, ("a new environment in .venv, Python {}.{}".format(*sys.version_info[:2]), make_venv))
    # where pip stopped by itself, what is there is whole, and can be added to
    take(todo, on_failure=lambda: write_stamp("incomplete"))
    write_stamp(target)


def advice(what, error):
    text = "Could not install {}: {}. The lines above say why. ".format(
        what, "exit {}".format(error.returncode) if hasattr(error, "returncode") else error
    )
    text += "Without a network nothing can be fetched; with one, run make again and it goes on from here."
    if sys.version_info[:2] > NEWEST:
        text += " The pinned packages may also have no build for Python {}.{} yet: try make PYTHON=python{}.{}.".format(
            *(sys.version_info[:2] + NEWEST)
        )
    return text


def main(argv=()):
    try:
        refuse_old(sys.version_info, sys.executable)
        if list(argv) == ["--here"]:
            install_here()
        elif argv:
            raise Stop("tools/env.py knows --here and nothing else, got {}.".format(" ".join(argv)))
        else:
            install()
    except Stop as e:
        print("\nmspace: {}".format(e), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nmspace: stopped; run make again and it starts afresh.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
