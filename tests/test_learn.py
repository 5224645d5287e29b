"Copies to play with (.ci/learn, `make learn`), and Run All in Jupyter, which leaves out what takes minutes."
import json
import shutil
import subprocess
import sys

import pytest


@pytest.fixture
def project(root, tmp_path):
    "The script with three lessons, in a folder of its own."
    for name in ('tutorials/00_ten_minutes.ipynb', 'nbs/tools/slow_cells.ipynb', 'nbs/assets/scene.json'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, tmp_path / name)
    (tmp_path / 'tutorials/runs').mkdir()
    (tmp_path / 'tutorials/runs/model.safetensors').write_bytes(b'large')
    (tmp_path / '.ci').mkdir()
    shutil.copyfile(root / '.ci/learn', tmp_path / '.ci/learn')
    return tmp_path


def learn(project):
    done = subprocess.run([sys.executable, str(project / '.ci/learn'), '--copy'], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return done.stdout


def test_copies_are_made_and_kept(project):
    first, other = (project / 'runs/learn' / n for n in ('tutorials/00_ten_minutes.ipynb', 'nbs/tools/slow_cells.ipynb'))
    assert learn(project) == ''
    assert first.read_bytes() == (project / 'tutorials/00_ten_minutes.ipynb').read_bytes() and (project / 'runs/learn/nbs/assets/scene.json').exists()
    assert not (project / 'runs/learn/tutorials/runs').exists()
    first.write_text('mine')
    assert learn(project) == '' and first.read_text() == 'mine'  # the lesson is as it was: nothing to say
    for name in ('tutorials/00_ten_minutes.ipynb', 'nbs/tools/slow_cells.ipynb'): (project / name).write_text('new')
    said = learn(project)
    assert 'tutorials/00_ten_minutes.ipynb: kept as you have changed it' in said and 'slow_cells' not in said
    assert first.read_text() == 'mine' and other.read_text() == 'new'
    first.unlink()
    assert learn(project) == '' and first.read_text() == 'new'


def test_run_all_leaves_out_slow_cells_and_shows_what_they_gave(tmp_path, monkeypatch):
    "In a kernel, as Jupyter runs it: the stored text and picture are there afterwards, the cell has not run."
    monkeypatch.delenv('IN_TEST', raising=False)
    picture = dict(output_type='display_data', metadata={}, data={'image/png': 'aGVsbG8=', 'text/plain': ['<Figure>']})
    import nbformat  # with nbclient it builds 38 grammars, for seconds: only in the worker that runs this
    from nbclient import NotebookClient
    new = nbformat.v4.new_code_cell
    cells = [new('from person_search_nb.slow_cells import skip_slow_cells\nskip_slow_cells()\nimport os; os.makedirs("else"); os.chdir("else")'),
             new('#| slow\nran = True', outputs=[nbformat.v4.new_output('stream', text='mAP 0.31\n'), nbformat.from_dict(picture)]),
             new('#| slow\nraise SystemExit'), new('print("ran" in globals())'),
             new('skip_slow_cells(False)'), new('#| slow\nran = True\nprint("now")')]
    nb = nbformat.v4.new_notebook(cells=cells)
    nbformat.write(nb, tmp_path / 'lesson.ipynb')
    NotebookClient(nb, timeout=120, resources=dict(metadata=dict(path=str(tmp_path)))).execute()
    said = [json.dumps(c.outputs) for c in nb.cells]
    assert 'Not run, because it takes long. Below is what it gave.' in said[1] and 'mAP 0.31' in said[1] and 'aGVsbG8=' in said[1]
    assert 'Not run' in said[2] and 'Below' not in said[2] and 'False' in said[3] and 'now' in said[5]
