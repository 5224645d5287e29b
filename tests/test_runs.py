"A folder belongs to one run: another is refused, a finished result stays until the next is whole, and two processes do not meet."
import json
import os
import shutil
import signal
import stat
import sys
import time
from pathlib import Path

import pytest
import torch

from person_search_nb import costs, demo as demo_module, files
from person_search_nb.cli import main
from person_search_nb.file_locks import BusyError, locked
from person_search_nb.datasets import open_dataset
from person_search_nb.model_files import save_model
from person_search_nb.checkpoints import load_tree
from person_search_nb.settings import computes_bf16, pick_precision, TrainConfig
from person_search_nb.runs import CHECKPOINT, OtherRun, RUN_FILES, read_log
from person_search_nb.training import train
from person_search_nb.models import build_model, load_model
from person_search_nb.recipe_settings import change
from person_search_nb.presets import make_recipe
from person_search_nb.recipes import read_recipe, run_recipe
from person_search_nb.ablations import run_ablation
from person_search_nb.demo import DemoConfig, run_demo, WRITTEN

pytestmark = pytest.mark.usefixtures('undrawn', 'no_curves', 'untimed')
SPEC = 'synth:tiny?train_scenes=6&test_scenes=4&train_ids=6&test_ids=4&queries=3&gallery=3&size=96x160'
SMALL = dict(width=0.125, rpn_channels=16, start='', imprint=False, steps=2, warmup=0, device='cpu', batch_size=2, rois_per_image=4, proposals=(12, 8), augment=None)


@pytest.fixture(scope='module')
def untimed():
    "Milliseconds are not measured: no two runs have the same."
    with pytest.MonkeyPatch.context() as m:
        for module in (costs, demo_module): m.setattr(module, 'measure_latency', lambda *a, **kw: dict(median=1., min=1., repeats=1))
        yield


def words(**settings): return ['--set', *(f'{k}={v}' for k, v in (SMALL | settings).items())]


def picture(folder):
    "Every file of a folder with its bytes, but for the bookkeeping of TensorBoard and Matplotlib."
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob('*')) if p.is_file() and 'tensorboard' not in p.parts and p.suffix != '.png'}


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    "A teacher, another one of the same file name, and a student of the first."
    folder = tmp_path_factory.mktemp('made')
    for name, seed in (('a/teacher', 0), ('b/teacher', 1)): run_recipe(make_recipe('hdl-teacher', SPEC, 'tiny', **SMALL, seed=seed), folder / name, progress=False)
    run_recipe(make_recipe('hdl-student-fast', SPEC, 'tiny', **SMALL, teacher=str(folder / 'a/teacher/model.safetensors')), folder / 'student', progress=False)
    return folder


@pytest.fixture
def student(made, tmp_path):
    shutil.copytree(made / 'student', tmp_path / 'student')
    return tmp_path / 'student'


# another run in an old folder -----------------------------------------------------------------------------------------

NOT_AUTO = 'fp32' if pick_precision(torch.device('cpu')) == 'bf16' else 'bf16'
OTHERS = {'data': dict(data=SPEC + '&seed=5'), 'lambdas': dict(lambdas=(0., 0., 0.)), 'teacher': dict(teacher='b/teacher'), 'proposals': dict(proposals=(14, 8)), 'lr': dict(lr=0.1),
          'hinton': dict(hinton=False), 'precision': dict(precision=NOT_AUTO), 'model': dict(model='hdl-student'), 'size': dict(size='64x112'), 'seed': dict(seed=3)}


@pytest.mark.parametrize('name', OTHERS)
def test_another_run_is_refused_by_name_and_touches_nothing(name, made, student, command):
    other, before = dict(OTHERS[name]), picture(student)
    teacher, model, data = (other.pop(k, v) for k, v in dict(teacher='a/teacher', model='hdl-student-fast', data=SPEC).items())
    ran = command('distill', made / teacher / 'model.safetensors', '--model', model, '--data', data, '--preset', 'tiny', '--out', student, *words(**other))
    assert ran.returncode == 1 and 'Traceback' not in ran.stderr
    line = ran.stderr.strip().splitlines()[-1]
    assert str(student) in line and name in line and '--restart' in line and '=True' not in line
    assert picture(student) == before


def test_the_same_run_goes_on_also_with_a_teacher_that_was_moved(made, student, command, tmp_path):
    shutil.copytree(made / 'a/teacher', tmp_path / 'elsewhere')
    before = picture(student)
    ran = command('distill', tmp_path / 'elsewhere/model.safetensors', '--model', 'hdl-student-fast', '--data', SPEC, '--preset', 'tiny', '--out', student, *words())
    assert ran.returncode == 0, ran.stderr
    assert picture(student).keys() == before.keys() and (student / 'recipe.json').read_bytes() == before['recipe.json']


def test_restart_moves_the_old_run_aside(made, student, command):
    before = picture(student)
    ran = command('distill', made / 'a/teacher/model.safetensors', '--model', 'hdl-student-fast', '--data', SPEC, '--preset', 'tiny', '--out', student, '--restart', *words(lr=0.1))
    assert ran.returncode == 0, ran.stderr
    assert picture(student / 'old-1') == before
    assert read_recipe(student / 'recipe.json').train.lr == 0.1 and read_recipe(student / 'old-1/recipe.json').train.lr != 0.1


def test_extend_trains_longer_from_the_checkpoint(made, tmp_path, command):
    out = tmp_path / 'run'
    train_it = lambda *more, **settings: command('train', '--model', 'hdl-student-fast', '--data', SPEC, '--preset', 'tiny', '--out', out, *more, *words(**dict(schedule='step', milestones=(9,)) | settings))
    assert train_it().returncode == 0
    first = read_log(out / 'log.csv')
    refused = train_it(steps=4)
    assert refused.returncode == 1 and 'steps (2 there, 4 here)' in refused.stderr and '--extend' in refused.stderr and '--restart' in refused.stderr
    assert read_recipe(out / 'recipe.json').train.steps == 2
    other = train_it('--extend', steps=4, lr=0.1)
    assert other.returncode == 1 and 'lr' in other.stderr and '--extend' not in other.stderr      # only the length may differ
    assert train_it('--extend', steps=1).returncode == 1                                         # shorter than what is there
    assert train_it('--extend', steps=4).returncode == 0
    assert read_recipe(out / 'recipe.json').train.steps == 4 and read_log(out / 'log.csv')[:2] == first
    whole, history = run_recipe(change(make_recipe('hdl-student-fast', SPEC, 'tiny', **SMALL | dict(steps=4, milestones=(9,), schedule='step'))), tmp_path / 'whole', progress=False)
    assert [h['loss'] for h in history] == [h['loss'] for h in read_log(out / 'log.csv')]          # a constant rate: as if it had been so long from the beginning
    there = whole.state_dict()
    assert all(torch.equal(v, there[k]) for k, v in load_model(out / 'model.safetensors').state_dict().items())


def test_a_stage_is_of_one_run_too(tmp_path):
    given = SMALL | {'cutouts.crops': (64, 48), 'cutouts.batch_size': 4}
    run_recipe(make_recipe('e2e-rss', SPEC, 'tiny', **given), tmp_path, progress=False)
    before = picture(tmp_path)
    with pytest.raises(OtherRun, match=r'1-cutouts: holds a run made with another lr .*restart=True'):
        run_recipe(make_recipe('e2e-rss', SPEC, 'tiny', **given | {'cutouts.lr': 1e-4}), tmp_path, progress=False)
    assert picture(tmp_path) == before
    run_recipe(make_recipe('e2e-rss', SPEC, 'tiny', **given | {'cutouts.lr': 1e-4}), tmp_path, progress=False, restart=True)
    assert (tmp_path / 'old-1/1-cutouts/model.safetensors').exists() and read_recipe(tmp_path / '1-cutouts/recipe.json').train.lr == 1e-4


def test_training_without_a_recipe_knows_its_data_and_network(tmp_path):
    data, config = open_dataset(SPEC, 'train', progress=False), TrainConfig(steps=2, batch_size=2, warmup=0, device='cpu', precision='fp32')
    build = lambda **kw: build_model('hdl-student-fast', 6, width=0.125, **dict(rpn_channels=16, proposals=(12, 8)) | kw)
    train(build(), data, config, tmp_path, progress=False)
    for other, scenes in ((build(iou=0.6), data), (build(), open_dataset(SPEC + '&seed=1', 'train', progress=False))):
        with pytest.raises(OtherRun, match='another iou|another data'): train(other, scenes, config, tmp_path, progress=False)
    with pytest.raises(OtherRun, match='not made from a recipe'): run_recipe(make_recipe('hdl-student-fast', SPEC, 'tiny', **SMALL), tmp_path, progress=False)


def test_results_without_a_checkpoint_are_not_overwritten(tmp_path, command):
    save_model(build_model('hdl-student-fast', 3, width=0.125), tmp_path / 'model.safetensors')
    before = picture(tmp_path)
    ran = command('train', '--model', 'hdl-student-fast', '--data', SPEC, '--preset', 'tiny', '--out', tmp_path, *words())
    assert ran.returncode == 1 and 'model.safetensors, which a training would overwrite' in ran.stderr and picture(tmp_path) == before


@pytest.mark.parametrize('damage,says', [(b'', 'not a readable checkpoint'), (b'rubbish' * 99, 'not a readable checkpoint')])
def test_a_broken_checkpoint_is_named(student, made, command, damage, says):
    (student / CHECKPOINT).write_bytes(damage)
    ran = command('distill', made / 'a/teacher/model.safetensors', '--model', 'hdl-student-fast', '--data', SPEC, '--preset', 'tiny', '--out', student, *words())
    assert ran.returncode == 1 and CHECKPOINT in ran.stderr and says in ran.stderr and 'Traceback' not in ran.stderr


def test_a_damaged_log_is_named_and_a_missing_one_is_no_obstacle(student, made):
    go = lambda: run_recipe(make_recipe('hdl-student-fast', SPEC, 'tiny', **SMALL, teacher=str(made / 'a/teacher/model.safetensors')), student, progress=False)
    text = (student / 'log.csv').read_text()
    (student / 'log.csv').write_text(text.replace('\n0,', '\nrubbish,'))
    with pytest.raises(ValueError, match=r'log.csv: line 2 is damaged; delete the file'): go()
    (student / 'log.csv').unlink()
    go()


# how numbers are chosen -----------------------------------------------------------------------------------------------

def test_precision_is_a_property_of_the_processor_and_kept(student, made, monkeypatch):
    from person_search_nb import settings
    monkeypatch.setattr(settings, 'bf16_gain', lambda *a, **k: pytest.fail('a stopwatch'))
    device = torch.device('cpu')
    for flag in (True, False):
        monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda flag=flag: dict(avx2=True, avx512_bf16=flag, cpu_name='bf16'))
        assert computes_bf16(device) is flag and pick_precision(device) == ('bf16' if flag else 'fp32')
    monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: dict(avx512_bf16=True))             # moved to another machine
    before = read_recipe(student / 'recipe.json').train.precision
    assert before in ('fp32', 'bf16')
    run_recipe(make_recipe('hdl-student-fast', SPEC, 'tiny', **SMALL, teacher=str(made / 'a/teacher/model.safetensors')), student, progress=False)
    assert read_recipe(student / 'recipe.json').train.precision == before == load_tree(student / CHECKPOINT)['precision']


def test_counts_stay_counts_and_the_size_is_kept(made, tmp_path):
    run_recipe(make_recipe('hdl-student-fast', SPEC, 'tiny', **SMALL, size='64x112'), tmp_path, progress=False)
    scores = json.loads((tmp_path / 'scores.json').read_text())[-1]
    assert isinstance(scores['queries'], int) and isinstance(scores['mAP'], float)
    assert load_model(tmp_path / 'model.safetensors').size == (64, 112)


def test_evaluation_takes_the_size_of_training(tmp_path, command):
    run_recipe(make_recipe('hdl-student-fast', SPEC, 'tiny', **SMALL, size='64x112', search_threshold=0.), tmp_path, progress=False)
    own = json.loads((tmp_path / 'scores.json').read_text())[-1]
    ask = lambda *more: command('evaluate', tmp_path / 'model.safetensors', '--data', SPEC, '--device', 'cpu', '--out', tmp_path / 'report', *more)
    found = lambda: json.loads((tmp_path / 'report/report.json').read_text())['search']['all']['mAP']
    assert 'scenes in 64x112, as in training' in ask().stdout and found() == pytest.approx(own['mAP'])
    ran = ask('--size', '96x160')
    assert ran.returncode == 0 and 'scenes in 96x160, as given; the network was trained with 64x112' in ran.stdout
    assert 'in their own size, as given' in ask('--size', 'none').stdout


# two at once ----------------------------------------------------------------------------------------------------------

def hold(folder):
    with locked(folder, 'training'): time.sleep(60)


@pytest.fixture
def held(tmp_path, child):
    "A folder in which another process is at work."
    folder = tmp_path / 'held'
    other = child(hold, folder)
    while other.is_alive() and not ((folder / '.lock').exists() and (folder / '.lock').stat().st_size): time.sleep(0.02)
    yield folder, other.pid
    other.kill(); other.join()


def test_the_second_is_told_who_is_there(held, command, tmp_path, made):
    folder, pid = held
    calls = dict(train=['train', '--model', 'hdl-student-fast', '--data', SPEC, '--preset', 'tiny', '--out', folder, *words()], demo=['demo', '--fast', '--out', folder],
                 distill=['distill', made / 'a/teacher/model.safetensors', '--data', SPEC, '--preset', 'tiny', '--out', folder, *words()],
                 make=['make-data', SPEC, folder], ablate=['ablate', 'table7', '--data', SPEC, '--out', folder, *words()])
    for name, call in calls.items():
        ran = command(*call)
        assert ran.returncode == 1 and f'process {pid} ' in ran.stderr and '(training), since 2' in ran.stderr and 'Traceback' not in ran.stderr, (name, ran.stderr)
    assert [p.name for p in folder.iterdir()] == ['.lock']


def test_the_lock_of_a_dead_process_is_no_obstacle(held, command):
    folder, pid = held
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.3)
    assert command('train', '--model', 'hdl-student-fast', '--data', SPEC, '--preset', 'tiny', '--out', folder, *words()).returncode == 0
    assert not (folder / '.lock').exists()


def test_one_network_of_a_table_is_trained_by_one_process(tmp_path):
    from person_search_nb.tables import TABLES
    from person_search_nb.ablation_rows import network_of, Plan
    given = SMALL | dict(search_threshold=0.)
    first = network_of(TABLES['table7'].rows[0], Plan(SPEC, 'tiny', settings=given), tmp_path / 'networks', TABLES['table7'].rows)
    with locked(first.folder, 'ablate table8'), pytest.raises(BusyError, match='ablate table8'):
        run_ablation('table7', SPEC, out=tmp_path / 'out', networks=tmp_path / 'networks', progress=False, **given)


@pytest.mark.parametrize('settings', [{}, {'cutouts.crops': (64, 48), 'cutouts.batch_size': 4}], ids=['one stage', 'two stages'])
def test_a_training_wants_a_folder_of_its_own(tmp_path, command, settings):
    (tmp_path / 'photos').mkdir(); (tmp_path / 'a.jpg').write_text('mine')
    before = picture(tmp_path)
    call = ['train', '--model', 'e2e-rss' if settings else 'hdl-student-fast', '--data', SPEC, '--preset', 'tiny', '--out', tmp_path, *words(**settings)]
    for more in ([], ['--restart']):
        ran = command(*call, *more)
        assert ran.returncode == 1 and 'holds a.jpg, photos, and no training, which wants a folder of its own; choose another folder' in ran.stderr and picture(tmp_path) == before
    (tmp_path / 'a.jpg').unlink(); (tmp_path / 'photos').rmdir()
    for name in ('run.log', 'slurm-7.out', '.gitignore'): (tmp_path / name).write_text('beside')
    assert command(*call).returncode == 0
    (tmp_path / 'plot.jpg').write_text('mine')  # from now on it is the run's folder
    assert command(*call).returncode == 0 and command(*call, '--restart').returncode == 0 and (tmp_path / 'plot.jpg').read_text() == 'mine'


@pytest.mark.parametrize('model, settings', [('hdl-student-fast', {}), ('e2e-rss', {'cutouts.crops': (64, 48), 'cutouts.batch_size': 4})])
def test_a_data_set_that_was_moved_is_the_same(tmp_path, command, model, settings):
    "It counts by its scenes, boxes and identities, not by its folder."
    assert command('make-data', SPEC, tmp_path / 'a', '--layout', 'prw', '--workers', '1').returncode == 0
    call = lambda place: command('train', '--model', model, '--data', f'prw:{place}', '--preset', 'tiny', '--out', tmp_path / 'run', *words(**settings))
    ran = call(tmp_path / 'a')
    assert ran.returncode == 0, ran.stderr
    before = picture(tmp_path / 'run')
    (tmp_path / 'a').rename(tmp_path / 'b')
    ran = call(tmp_path / 'b')
    assert ran.returncode == 0, ran.stderr
    assert picture(tmp_path / 'run') == before
    assert command('make-data', SPEC + '&seed=5', tmp_path / 'c', '--layout', 'prw', '--workers', '1').returncode == 0
    ran = call(tmp_path / 'c')
    assert ran.returncode == 1 and 'data' in ran.stderr and '--restart' in ran.stderr and picture(tmp_path / 'run') == before


# killed, interrupted, no room ------------------------------------------------------------------------------------------

COMMANDS = dict(
    distill=lambda made, out: ['distill', made / 'a/teacher/model.safetensors', '--model', 'hdl-student-fast', '--data', SPEC, '--preset', 'tiny', '--out', out,
                               *words(steps=6, checkpoint_every=1)],
    ablate=lambda made, out: ['ablate', 'table7', '--data', SPEC, '--preset', 'tiny', '--out', out / 'table', '--networks', out / 'networks', *words(steps=3, checkpoint_every=1)])
FILES = dict(distill=('model.safetensors', 'recipe.json', 'scores.json'), ablate=('table/results.json',))


def typed(*words):
    "A command in a process of its own."
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with it ignored
    sys.argv = ['person-search', *words]
    main()


@pytest.mark.parametrize('name', COMMANDS)
@pytest.mark.parametrize('how', [signal.SIGKILL, signal.SIGINT])
def test_killed_and_called_again_it_ends_as_if_nothing_had_been(name, how, made, tmp_path, child, command, whole):
    out = tmp_path / 'out'
    call = [*map(str, COMMANDS[name](made, out))]
    other = child(typed, *call)
    until = time.time() + 120
    while other.is_alive() and time.time() < until and not list(out.rglob(CHECKPOINT)): time.sleep(0.02)
    os.kill(other.pid, how)
    other.join(60)
    assert other.exitcode == (-how if how == signal.SIGKILL else 130), other.exitcode
    written = [p for p in out.rglob('*') if p.name in RUN_FILES and not (p.parent / 'done').exists()]
    for p in (*written, out / FILES[name][0]):  # what a kill in the middle of writing leaves
        if p.parent.exists(): p.with_name(f'{p.name}.4711.part').write_bytes(b'half')
    ran = command(*call)
    assert ran.returncode == 0, ran.stderr
    assert not list(out.rglob('*.part')) and not list(out.rglob('.lock'))
    for file in FILES[name]: assert same_content(out / file, whole[name] / file), file


def same_content(a, b):
    "Equal bytes; of a table equal numbers, where times and folders are not looked at."
    if a.name != 'results.json': return a.read_bytes() == b.read_bytes()
    rows = [[(r['label'], r['mAP'], r['det_ap']) for r in json.loads(p.read_text())['rows']] for p in (a, b)]
    return rows[0] == rows[1]


@pytest.fixture(scope='module')
def whole(made, tmp_path_factory):
    "The unbroken runs."
    out = tmp_path_factory.mktemp('whole')
    for name, call in COMMANDS.items():
        with pytest.MonkeyPatch.context() as m:
            m.setattr(sys, 'argv', ['person-search', *map(str, call(made, out / name))])
            main()
    return {name: out / name for name in COMMANDS}


def fail_at(monkeypatch, number):
    "The disk is full at the n-th file."
    calls, real = [], os.fsync
    def fsync(f):
        calls.extend([f] * stat.S_ISREG(os.fstat(f).st_mode))                           # folders are written through, too
        if len(calls) >= number: raise OSError(28, 'No space left on device')
        real(f)
    monkeypatch.setattr(files.os, 'fsync', fsync)


@pytest.mark.parametrize('name', COMMANDS)
@pytest.mark.parametrize('number', [1, 8])
def test_no_room_on_the_disk_is_one_line_and_goes_on_after_room_is_made(name, number, made, tmp_path, command, whole, monkeypatch):
    out = tmp_path / 'out'
    with monkeypatch.context() as m:
        fail_at(m, number)
        ran = command(*COMMANDS[name](made, out))
    assert ran.returncode == 1 and 'No space left on device' in ran.stderr and 'Traceback' not in ran.stderr
    ran = command(*COMMANDS[name](made, out))
    assert ran.returncode == 0, ran.stderr
    for file in FILES[name]: assert same_content(out / file, whole[name] / file), file


# tables ----------------------------------------------------------------------------------------------------------------

def test_a_table_of_other_settings_is_refused_and_old_scores_are_not_taken(tmp_path, command):
    call = lambda *more, **settings: command('ablate', 'table7', '--data', SPEC, '--out', tmp_path / 'out', '--networks', tmp_path / 'networks', *more, *words(**settings))
    assert call().returncode == 0
    before = picture(tmp_path / 'out')
    ran = call(lr=0.1)
    assert ran.returncode == 1 and 'settings' in ran.stderr and '--restart' in ran.stderr and picture(tmp_path / 'out') == before
    assert call('--restart', lr=0.1).returncode == 0
    assert picture(tmp_path / 'out/old-1') == before
    folders = lambda p: {run['folder'] for row in json.loads((p / 'results.json').read_text())['rows'] for run in row['runs']}
    assert not folders(tmp_path / 'out') & folders(tmp_path / 'out/old-1')
    (tmp_path / 'foreign').mkdir(); (tmp_path / 'foreign/results.json').write_text('{"mine": 1}')
    ran = command('ablate', 'table7', '--data', SPEC, '--out', tmp_path / 'foreign', '--networks', tmp_path / 'networks', *words())
    assert ran.returncode == 1 and 'overwrite' in ran.stderr and (tmp_path / 'foreign/results.json').read_text() == '{"mine": 1}'


def test_scores_of_another_network_are_measured_again(tmp_path):
    given = SMALL | dict(search_threshold=0.)
    go = lambda: run_ablation('table7', SPEC, out=tmp_path / 'out', networks=tmp_path / 'networks', progress=False, **given)
    first = go()
    kept = sorted((tmp_path / 'out').glob('*-seed0.json'))
    right = [p.read_text() for p in kept]
    broken = json.dumps(json.loads(right[0]) | dict(network='another', mAP=0.99)), '', '[]'
    for p, text in zip(kept, broken, strict=True): p.write_text(text)                     # one for each row
    assert [r['mAP'] for r in go()['rows']] == [r['mAP'] for r in first['rows']]
    assert [p.read_text() for p in kept] == right


# the demo ---------------------------------------------------------------------------------------------------------------

MINI = DemoConfig(data='synth:tiny?train_scenes=4&test_scenes=4&train_ids=6&test_ids=4&queries=2&gallery=3&cameras=2&size=96x160', width=0.125, student_width=0.25,
                  pretrained=False, teacher_epochs=1, student_epochs=1)


def test_a_demo_leaves_other_folders_alone(tmp_path, command):
    (tmp_path / 'teacher').mkdir()
    for name in ('teacher/model.safetensors', 'results.json', 'report.html'): (tmp_path / name).write_text('mine')
    before = picture(tmp_path)
    ran = command('demo', '--fast', '--out', tmp_path)
    assert ran.returncode == 1 and str(tmp_path) in ran.stderr and 'no demo' in ran.stderr and picture(tmp_path) == before
    for text in ('', '{}', '{"architectures": ["mine"]}', '[' * 10 ** 5):
        (tmp_path / 'config.json').write_text(text)
        before = picture(tmp_path)
        ran = command('demo', '--fast', '--out', tmp_path)
        assert ran.returncode == 1 and 'config.json' in ran.stderr and 'Traceback' not in ran.stderr and picture(tmp_path) == before


def test_a_training_in_a_demos_folder_is_left_alone(tmp_path):
    demo_module._begin(tmp_path, MINI)
    run_recipe(make_recipe('hdl-teacher', SPEC, 'tiny', **SMALL), tmp_path / 'teacher', progress=False)
    before = picture(tmp_path)
    with pytest.raises(ValueError, match='teacher: holds a training of person-search train'): run_demo(DemoConfig(seed=1), tmp_path)
    assert picture(tmp_path) == before


@pytest.mark.parametrize('place', ['teacher', 'student_hdl'])
def test_a_killed_demo_goes_on_to_the_same_numbers(place, tmp_path, child, mini):
    "kill -9 while a network is trained: the same call goes on, and ends as if nothing had been."
    out = tmp_path / 'demo'
    other = child(run_demo, MINI, out)
    until = time.time() + 200
    while other.is_alive() and time.time() < until and not (out / place / CHECKPOINT).exists(): time.sleep(0.02)
    assert other.is_alive()
    other.kill(); other.join(60)
    assert not (out / 'results.json').exists()
    again = run_demo(MINI, out)
    numbers = lambda r: {k: {m: v for m, v in r[k].items() if m != 'ms_scene'} for k in demo_module.ROWS}
    assert numbers(again) == numbers(mini[1]) and {p.name for p in out.iterdir()} == {*WRITTEN} and not list(out.rglob('*.part'))


@pytest.fixture(scope='module')
def mini(tmp_path_factory):
    "A demo that nobody broke, and its results."
    out = tmp_path_factory.mktemp('mini') / 'demo'
    return out, run_demo(MINI, out)


def test_an_old_result_stays_until_the_new_one_is_whole(tmp_path, monkeypatch, capsys, mini):
    out = shutil.copytree(mini[0], tmp_path / 'demo')
    old = {name: (out / name).read_bytes() for name in ('report.html', 'results.json', 'teacher.safetensors')}
    still = lambda: all((out / name).read_bytes() == data for name, data in old.items())

    real = demo_module.train                                                            # Ctrl-C between two trainings
    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        def stopped(*a, **kw):
            if kw['out'].name == 'student_plain': raise KeyboardInterrupt
            return real(*a, **kw)
        m.setattr(demo_module, 'train', stopped)
        run_demo(MINI, out)
    assert still() and (out / 'next/teacher/model.safetensors').exists()

    write = demo_module.atomic_write                                                      # no room for the last file
    with monkeypatch.context() as m, pytest.raises(OSError, match='No space'):
        def full(path, data, **kw):
            if path.name == 'results.json': raise OSError(28, 'No space left on device')
            write(path, data, **kw)
        m.setattr(demo_module, 'atomic_write', full)
        run_demo(MINI, out)
    assert still() and (out / 'next/report.html').exists()

    moves, rename = [], Path.rename                                                      # killed in the middle of the exchange
    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        def moved(self, target):
            if self.parent.name == 'next':
                moves.append(self.name)
                if len(moves) == 5: raise KeyboardInterrupt
            return rename(self, target)
        m.setattr(Path, 'rename', moved)
        run_demo(MINI, out)
    assert (out / 'results.json').read_bytes() == old['results.json']
    new = json.loads((out / 'next/results.json').read_text())
    assert demo_module._prepare(out, MINI) == out / 'next'                               # the next call finishes it before it begins
    assert json.loads((out / 'results.json').read_text()) == new and {p.name for p in out.iterdir()} == {*WRITTEN, 'next'}
    for key in ('teacher', 'student_plain', 'student_hdl'): assert {k: v for k, v in new[key].items() if k != 'ms_scene'} == {k: v for k, v in json.loads(old['results.json'])[key].items() if k != 'ms_scene'}


def test_half_a_result_is_no_result(tmp_path):
    demo_module._begin(tmp_path, MINI)
    (tmp_path / 'teacher').mkdir(); (tmp_path / 'teacher/log.csv').write_text('kept')
    (tmp_path / 'results.json').write_text('')
    assert demo_module._prepare(tmp_path, MINI) == tmp_path and (tmp_path / 'teacher/log.csv').read_text() == 'kept'


# data -------------------------------------------------------------------------------------------------------------------

def test_a_set_is_not_written_over_another(tmp_path, command):
    (tmp_path / 'annotation').mkdir(); (tmp_path / 'annotation/Images.mat').write_text('mine')
    before = picture(tmp_path)
    ran = command('make-data', SPEC, tmp_path)
    assert ran.returncode == 1 and 'annotation of another data set' in ran.stderr and picture(tmp_path) == before
    new = tmp_path / 'new'
    new.mkdir(); (new / 'synth.json').write_text('')
    ran = command('make-data', SPEC, new)
    assert ran.returncode == 1 and 'synth.json' in ran.stderr and 'Traceback' not in ran.stderr


def test_people_on_both_sides_are_counted_and_a_set_without_a_split_is_refused(tmp_path, command):
    "first_use.md, B2: 64 of 64 people searched were trained on, and nobody said so."
    from PIL import Image
    rows = [dict(id=k, image_id=k // 2, category_id=1, bbox=[10 + 40 * (k % 2), 8, 24, 48], person_id=k % 4) for k in range(16)]
    for i in range(8): Image.effect_noise((112, 64), 50).convert('RGB').save(tmp_path / f'c{i % 2 + 1}_{i}.png')
    pictures = [dict(id=i, file_name=f'c{i % 2 + 1}_{i}.png', width=112, height=64) for i in range(8)]
    (tmp_path / 'annotations.json').write_text(json.dumps(dict(images=pictures, annotations=rows, categories=[dict(id=1, name='person')])))
    small = ['--model', 'hdl-student-fast', '--preset', 'tiny', '--out', tmp_path / 'run', '--set', 'width=0.125', 'start=', 'steps=1', 'precision=fp32', 'device=cpu', 'workers=0', 'imprint=False']
    done = command('train', '--data', f'coco:{tmp_path}', *small)
    assert done.returncode == 1 and 'has no split' in done.stderr and 'train=' in done.stderr
    split = f'coco:{tmp_path}?train=*&gallery=*'
    done = command('train', '--data', split, *small)
    assert done.returncode == 0 and '4 of 4 people searched were trained on, and 8 of 8 pictures searched' in done.stdout, done.stderr
    done = command('evaluate', tmp_path / 'run/model.safetensors', '--data', split)
    assert done.returncode == 0 and 'warning: 4 of 4 people searched were trained on' in done.stderr


def test_attention_is_distilled_between_networks_that_have_it():
    from person_search_nb.distillation import HDL
    from person_search_nb.models import build_model
    plain, arm = (build_model('hdl-teacher', 4, width=0.125, rpn_channels=16, attention=a) for a in ('none', 'arm'))
    for teacher, student, who in ((plain, arm, 'teacher'), (arm, plain, 'student')):
        with pytest.raises(ValueError, match=rf'the {who} has no attention to compare; leave out ad'): HDL(teacher, student)
        HDL(teacher, student, lambdas=(.9, 0., 2e3))
