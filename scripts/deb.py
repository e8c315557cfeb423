"""A Debian package out of a wheel: python -m scripts.deb WHEEL DIRECTORY [--revision N]

The package has an environment of its own in /opt/dsreg, for the python3 of the Debian that it is built on, with all
that the wheel needs; units, man pages, completions. `pip` fetches what is needed from where it is configured to.
"""

from __future__ import annotations

import argparse
import compileall
import gzip
import os
import py_compile
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from dsreg.version import VERSION
from scripts import manpages

TREE = Path(__file__).resolve().parents[1]
PARTS = TREE / "deploy" / "debian"
SYSTEM_PYTHON = "/usr/bin/python3"
HOME = "opt/dsreg"
SHELLS = {
    "bash": "usr/share/bash-completion/completions/{program}",
    "zsh": "usr/share/zsh/vendor-completions/_{program}",
    "fish": "usr/share/fish/vendor_completions.d/{program}.fish",
}
DOCUMENTS = ("README.md", "CHANGELOG.md", "deploy/runbook.md", "deploy/cluster.toml")
LAUNCHER = """\
#!/{home}/bin/python3 -P
from {module} import {name}

{name}()
"""
ENTRIES = {"dsreg": ("dsreg.cli", "main"), "dsreg-fuse": ("fuse_frontend.cli", "run"),
           "dsreg-nbd": ("nbd_frontend.cli", "run")}


def python_of_the_system() -> tuple[int, int]:
    """The version of the python3 that the package will run on; ends the program if this one is another."""
    code = "import sys; print(*sys.version_info[:2])"
    done = subprocess.run([SYSTEM_PYTHON, "-I", "-c", code], capture_output=True, text=True, check=True)
    major, minor = map(int, done.stdout.split())
    if (major, minor) != sys.version_info[:2]:
        own = f"{sys.version_info[0]}.{sys.version_info[1]}"
        sys.exit(f"deb: {SYSTEM_PYTHON} is {major}.{minor}, and this is {own}: what is compiled would not fit. Make "
                 f".venv with {SYSTEM_PYTHON}")
    return major, minor


def install_environment(root: Path, wheel: Path, version: tuple[int, int]) -> None:
    """As `python3 -m venv` and pip would, but for the place where it will be."""
    site = root / HOME / "lib" / f"python{version[0]}.{version[1]}" / "site-packages"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-compile",
         "--no-warn-script-location", "--target", str(site), f"{wheel}[fuse,metrics]"], check=True)
    shutil.rmtree(site / "bin", ignore_errors=True)  # with the path of this interpreter in each
    for found in site.rglob("direct_url.json"):  # the path of the wheel
        found.unlink()
    # Never written again, by whoever runs it: nothing is left behind when the package goes.
    compileall.compile_dir(site, quiet=2, stripdir=str(root), prependdir="/",
                           invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    programs = root / HOME / "bin"
    programs.mkdir()
    (programs / "python3").symlink_to(f"/usr/bin/python{version[0]}.{version[1]}")
    (root / HOME / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    (root / "usr/bin").mkdir(parents=True)
    for program, (module, name) in ENTRIES.items():
        (programs / program).write_text(LAUNCHER.format(home=HOME, module=module, name=name))
        (programs / program).chmod(0o755)
        (root / "usr/bin" / program).symlink_to(f"/{HOME}/bin/{program}")


def install_files(root: Path) -> None:
    units = root / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    for unit in sorted((TREE / "deploy/systemd").glob("dsreg*.s[eo]*")):
        if unit.suffix in (".service", ".socket"):
            shutil.copyfile(unit, units / unit.name)
    users = root / "usr/lib/sysusers.d"
    users.mkdir(parents=True)
    shutil.copyfile(TREE / "deploy/systemd/dsreg.sysusers.conf", users / "dsreg.conf")
    documents = root / "usr/share/doc/dsreg"
    documents.mkdir(parents=True)
    for name in DOCUMENTS:
        shutil.copyfile(TREE / name, documents / Path(name).name)
    shutil.copyfile(TREE / "LICENSE", documents / "copyright")
    pages = root / "usr/share/man/man1"
    pages.mkdir(parents=True)
    for name, content in manpages.pages():
        (pages / f"{name}.gz").write_bytes(gzip.compress(content.encode(), mtime=0))
    (root / "etc/dsreg").mkdir(parents=True, mode=0o700)
    for shell, where in SHELLS.items():
        for program in ENTRIES:
            path = root / where.format(program=program)
            path.parent.mkdir(parents=True, exist_ok=True)
            script = [sys.executable, "-m", "dsreg", "completion", shell, program]
            path.write_bytes(subprocess.run(script, cwd=TREE, capture_output=True, check=True).stdout)


def write_control(root: Path, version: tuple[int, int], revision: int) -> str:
    """Gives the architecture."""
    asked = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True)
    architecture = asked.stdout.strip()
    size = sum(path.lstat().st_size for path in root.rglob("*") if not path.is_dir()) >> 10
    text = (PARTS / "control.in").read_text()
    for name, value in {
        "VERSION": f"{VERSION}-{revision}", "ARCHITECTURE": architecture, "SIZE": size,
        "PYTHON": f"{version[0]}.{version[1]}", "NEXT_PYTHON": f"{version[0]}.{version[1] + 1}",
    }.items():
        text = text.replace(f"@{name}@", str(value))
    control = root / "DEBIAN"
    control.mkdir()
    (control / "control").write_text(text)
    for script in ("postinst", "prerm", "postrm"):
        shutil.copyfile(PARTS / script, control / script)
        (control / script).chmod(0o755)
    return architecture


def build(wheel: Path, directory: Path, revision: int) -> Path:
    """The package, in `directory`."""
    version = python_of_the_system()
    os.umask(0o022)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "root"
        root.mkdir()
        install_environment(root, wheel.absolute(), version)
        install_files(root)
        architecture = write_control(root, version, revision)
        path = directory / f"dsreg_{VERSION}-{revision}_{architecture}.deb"
        subprocess.run(["dpkg-deb", "--build", "--root-owner-group", "-Zxz", str(root), str(path)], check=True,
                       stdout=subprocess.DEVNULL)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--revision", type=int, default=1)
    chosen = parser.parse_args()
    print(build(chosen.wheel, chosen.directory, chosen.revision))


if __name__ == "__main__":
    main()
