"README.md is generated from nbs/index.ipynb, and its picture and commands exist."
import re
import subprocess
import sys
from pathlib import Path

root = Path(__file__).parent.parent


def test_readme_is_the_index():
    assert subprocess.run([sys.executable, root/'.ci/readme', '--check']).returncode == 0, 'run .ci/readme'


def test_readme_pictures_exist():
    pictures = re.findall(r'!\[[^\]]*\]\(([^)]+)\)', (root/'README.md').read_text(encoding='utf-8'))
    assert pictures and all((root/p).is_file() for p in pictures)


def test_readme_leads_to_every_notebook():
    text = (root/'README.md').read_text(encoding='utf-8')
    lost = [p.name for folder in ('nbs', 'tutorials') for p in sorted((root/folder).glob('[0-9]*.ipynb')) if f']({folder}/{p.name})' not in text]
    assert not lost, f'not in the map of nbs/index.ipynb: {lost}'


def test_readme_commands_exist():
    text, make = (root/'README.md').read_text(encoding='utf-8'), (root/'Makefile').read_text()
    assert all(re.search(rf'^{t}:', make, re.M) for t in set(re.findall(r'^make ([\w-]+)', text, re.M)) | {'demo', 'test'})
    from person_search_nb.cli import COMMANDS
    assert set(re.findall(r'^person-search ([\w-]+)', text, re.M)) <= set(COMMANDS)
