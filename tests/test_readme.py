"README.md is generated from nbs/index.ipynb, and its picture and commands exist."
import json
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
    lost = [p.name for folder in ('nbs', 'nbs/tools', 'tutorials') for p in sorted((root/folder).glob('*.ipynb'))
            if p.name not in ('index.ipynb', 'explore.ipynb') and f']({folder}/{p.name})' not in text]
    assert not lost, f'not in the map of nbs/index.ipynb: {lost}'


def test_readme_commands_exist():
    text, make = (root/'README.md').read_text(encoding='utf-8'), (root/'Makefile').read_text()
    assert all(re.search(rf'^{t}:', make, re.M) for t in set(re.findall(r'^make ([\w-]+)', text, re.M)) | {'demo', 'test'})
    from person_search_nb.cli import COMMANDS
    assert set(re.findall(r'^person-search ([\w-]+)', text, re.M)) <= set(COMMANDS)


def test_all_five_matches_are_right(root):
    "The README's first search, as it stands there."
    import torch
    from person_search_nb.boxes import box_iou
    cells = [''.join(c['source']) for c in json.loads((root/'nbs/index.ipynb').read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'code']
    first = [i for i, c in enumerate(cells) if 'people.search(' in c]
    assert len(first) == 1
    names = {}
    for c in cells[:first[0] + 1]: exec(c, names)
    scenes, who, own = names['scenes'], names['who'], names['queries'].gallery_index[6]
    def right(m):
        truth = scenes.truth(m.scene)
        return bool((box_iou(torch.as_tensor(m.box).float().view(1, 4), truth['boxes'][truth['person_id'] == who]) > .5).any())
    assert len(names['matches']) == 5 and all(m.scene != own and right(m) for m in names['matches'])
