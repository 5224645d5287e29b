"Runs as objects: what is read and kept, sweeps that are killed and go on, comparisons against a loop, own rows of an ablation, the two commands."
import multiprocessing, os, signal, sys, time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from person_search_nb import searchers
from person_search_nb.ablations import run_ablation
from person_search_nb.comparing import compare, PAGE_MARK, paired_interval
from person_search_nb.paper_tables import Row
from person_search_nb.predictions import Predictions
from person_search_nb.presets import make_recipe
from person_search_nb.recipes import finish_recipe
from person_search_nb.runs import OtherRun, read_log
from person_search_nb.searchers import Searcher
from person_search_nb.training_runs import differing, Run, runs, sweep, sweep_folders, sweep_recipes, SweepFailed

pytestmark = pytest.mark.usefixtures('no_curves')
SPEC = 'synth:tiny?train_scenes=4&test_scenes=6&train_ids=4&test_ids=4&queries=4&gallery=4&size=96x160'
STEP = dict(width=0.125, rpn_channels=16, start='', imprint=False, steps=1, warmup=0, precision='fp32', device='cpu', batch_size=2, rois_per_image=4, proposals=(12, 8), search_threshold=0., augment=None)


def student(**more): return make_recipe('hdl-student-fast', SPEC, 'tiny', **STEP | more)


@pytest.fixture(scope='module')
def two(tmp_path_factory):
    "Two runs that differ in their seed."
    out = tmp_path_factory.mktemp('runs')
    return out, sweep(student(), dict(seed=[0, 1]), out, progress=False)


def same(a, b): return a.names == b.names and all((v == b.arrays()[k]).all() for k, v in a.arrays().items()) and (a.query_feats == b.query_feats).all()


def test_a_run_says_what_its_folder_holds(two):
    out, table = two
    r = Run(out / 'seed=1')
    assert r.finished and r.recipe.train.seed == 1 and r.name == 'seed=1' and r.data == SPEC
    assert len(r.log) == 1 and r.scores[-1]['step'] == 1 and r.start['start'] == ''
    assert r.model() is r.model() and not r.model().training
    assert "steps 1" in repr(r) and '<table>' in r._repr_html_() and 'data:image/png' in r._repr_html_()
    again = r.evaluate(progress=False)
    assert again['mAP'] == pytest.approx(r.scores[-1]['mAP'], abs=1e-9) and again['det_ap'] == pytest.approx(r.scores[-1]['det_ap'], abs=1e-9)
    rows = r.per_query()
    assert np.mean([q['AP'] for q in rows if q['AP'] is not None]) == pytest.approx(again['mAP'])
    assert all((q['first'] is None) == (q['found'] == 0) for q in rows)


def test_detections_are_kept_for_this_model_and_these_data(two, monkeypatch):
    out, _ = two
    first = Run(out / 'seed=0').found(progress=False)
    searched = []
    whole = searchers.run_detector
    monkeypatch.setattr(searchers, 'run_detector', lambda *a, **k: searched.append(1) or whole(*a, **k))
    kept = Run(out / 'seed=0').found(progress=False)
    assert not searched and same(first, kept) and len(first)
    Run(out / 'seed=0').found(SPEC.replace('queries=4', 'queries=3'), progress=False)
    assert len(searched) == 1
    folder = out / 'seed=0' / 'predictions'
    assert len(list(folder.iterdir())) == 2
    for file in folder.iterdir(): file.write_bytes(b'damaged')
    assert same(Run(out / 'seed=0').found(progress=False), first) and len(searched) == 2


@pytest.mark.parametrize('spoil', ['other queries', 'other scenes', 'another format'])
def test_what_is_kept_is_checked(spoil, two, monkeypatch):
    "A file of predictions under the right name, of something else: searched again, and written again."
    run = Run(two[0] / 'seed=1')
    first = run.found(progress=False)
    file = next(f for f in (run.folder / 'predictions').iterdir() if same(Predictions.load(f), first))
    if spoil == 'other queries': replace(first, query_feats=first.query_feats[:-1]).save(file)
    elif spoil == 'other scenes': replace(first, names=[f'x{n}' for n in first.names]).save(file)
    else: np.savez(file, **first.arrays(), query_feats=first.query_feats)
    searched, whole = [], searchers.run_detector
    monkeypatch.setattr(searchers, 'run_detector', lambda *a, **k: searched.append(1) or whole(*a, **k))
    assert same(Run(run.folder).found(progress=False), first) and searched
    assert same(Predictions.load(file), first)


def test_what_a_run_found_is_anybodys_predictions(two, command):
    run = two[1][0]
    run.found(progress=False)
    file = next((run.folder / 'predictions').iterdir())
    done = command('evaluate', '--predictions', file, '--data', SPEC, '--score-threshold', run.model().search_threshold)
    assert done.returncode == 0 and f'{100 * run.evaluate()["mAP"]:.1f}' in done.stdout, done.stderr


def test_a_longer_training_is_searched_again(tmp_path):
    sweep(student(), dict(seed=[0]), tmp_path, progress=False)
    before = Run(tmp_path / 'seed=0')
    before.found(progress=False)
    old, = (tmp_path / 'seed=0' / 'predictions').iterdir()
    sweep(student(steps=2), dict(seed=[0]), tmp_path, extend=True, progress=False)
    assert len(read_log(tmp_path / 'seed=0' / 'log.csv')) == 2
    Run(tmp_path / 'seed=0').found(progress=False)
    new, = (tmp_path / 'seed=0' / 'predictions').iterdir()
    assert new.name != old.name


@pytest.mark.parametrize('make, why', [
    (lambda p: Run(p / 'none'), 'no such folder'),
    (lambda p: Run(p), 'is no run: there is no recipe.json'),
    (lambda p: runs(p), 'no run in it'),
    (lambda p: runs(p / 'none'), 'no such folder'),
    (lambda p: compare(p, p), 'is no run'),
    (lambda p: Searcher('shipped:nobody'), 'nobody'),
    (lambda p: compare('shipped:hdl-student-fast', 'shipped:hdl-student-fast-taught'), 'give data=SPEC'),
])
def test_what_is_no_run_is_one_line(make, why, tmp_path):
    with pytest.raises(ValueError, match=why) as e: make(tmp_path)
    assert '\n' not in str(e.value)


def test_damaged_and_unfinished_runs(tmp_path, two):
    import shutil
    shutil.copytree(two[0], tmp_path / 'r')
    (tmp_path / 'r/seed=0/recipe.json').write_text('{')
    (tmp_path / 'r/seed=1/model.safetensors').unlink()
    table = runs(tmp_path / 'r')
    assert len(table) == 1 and 'not read: ' in repr(table) and 'not finished' in repr(table) and 'not read' in table._repr_html_()
    with pytest.raises(ValueError, match='not come to its end'): table[0].model()
    with pytest.raises(ValueError, match='is not JSON'): Run(tmp_path / 'r/seed=0')


def test_a_table_of_runs_shows_what_differs(two):
    out, table = two
    assert [r['seed'] for r in table.rows()] == [0, 1] and 'lr' not in table.rows()[0]
    assert repr(table).splitlines()[0].startswith('| run | seed | steps | minutes | loss | mAP |')
    assert table['seed=1'].recipe.train.seed == table[1].recipe.train.seed == 1
    with pytest.raises(KeyError, match='there are seed=0, seed=1'): table['seed=7']
    assert differing([dict(a=(1, 2), workers=1), dict(a=[1, 2], workers=2), dict(a=[1, 2], b=3)]) == dict(b=[None, None, 3])


def test_runs_leaves_out_stages_and_what_was_moved_aside(tmp_path, two):
    import shutil
    for place in ('a', 'a/1-first', 'a/old-1', 'deep/er/b'): shutil.copytree(two[0] / 'seed=0', tmp_path / place, dirs_exist_ok=True)
    assert [r.name for r in runs(tmp_path)] == ['a', str(Path('deep/er/b'))]


def test_frames(two):
    pd = pytest.importorskip('pandas')
    out, table = two
    assert list(table.frame()['seed']) == [0, 1] and isinstance(table.frame(), pd.DataFrame)
    assert list(table[0].frame()['step']) == [0] and len(table[0].frame('queries', progress=False)) == 4
    with pytest.raises(ValueError, match="'log', 'scores' or 'queries'"): table[0].frame('losses')


def test_frames_without_pandas_say_what_installs_it(two, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pandas', None)
    with pytest.raises(ValueError, match=r"pip install 'person_search_nb\[pandas\]'"): two[1].frame()


@pytest.mark.parametrize('grid, why', [
    ({}, 'a grid is a dict'), (dict(lr=.1), r'lr=\[0.1\]'), (dict(lr='0.1'), "give a list"), (dict(lr=[]), 'has no values'), (dict(seed=[1, 1]), 'each value once'),
    (dict(lr=[-1]), 'lr'), (dict(lrr=[.1]), "no setting 'lrr'"), (dict(trunk=['resnet1']), 'trunk'), (dict(start=['none.pth']), 'no such model file')])
def test_a_grid_is_checked_before_the_first_training(grid, why, tmp_path):
    with pytest.raises(ValueError, match=why): sweep(student(), grid, tmp_path / 'out', progress=False)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('model', ['clsa', 'e2e-rss', 'detector+idnet', 'faster-rcnn-r50'])
def test_a_sweep_over_stages_is_what_make_recipe_makes(model, tmp_path):
    "Every recipe of a sweep over a staged recipe equals the one made with these settings."
    for preset in ('paper', 'tiny'):
        base = make_recipe(model, SPEC, preset)
        name = base.stages[0]['name']
        for grid in (dict(lr=[.1, .2], seed=[3]), dict(epochs=[3], width=[.25]), dict(steps=[30]), {f'{name}.lr': [.3]}, dict(dim=[64]), {'optimizer': ['adamw'], 'optimizer.betas': [(.9, .9)]}, dict(size=['96x160'])):
            made = sweep_recipes(base, grid)
            assert list(made.values()) == list(sweep_recipes(dict(model=model, data=SPEC, preset=preset), grid).values())
    with pytest.raises(ValueError, match='model decides what the stages'): sweep(base, dict(model=['oim']), tmp_path / 'x', progress=False)


def test_a_sweep_over_what_decides_the_stages(tmp_path):
    table = sweep(dict(data=SPEC, preset='tiny', **STEP), dict(model=['oim', 'hdl-student-fast']), tmp_path, progress=False)
    assert [r.recipe.model for r in table] == ['hdl-student-fast', 'oim'] and set(differing([r.settings for r in table])) > {'model', 'trunk'}


def finish_but_one(recipe, folder, *a, **how):
    if recipe.train.seed == 1: raise RuntimeError('the trunk is broken')
    if recipe.train.seed == 9: raise KeyboardInterrupt
    finish_recipe(recipe, folder, *a, **how)


def test_one_broken_run_does_not_end_a_sweep(tmp_path, monkeypatch, command):
    "The others are trained, and the error at the end names it; Ctrl-C ends everything."
    monkeypatch.setattr('person_search_nb.training_runs.finish_recipe', finish_but_one)
    with pytest.raises(SweepFailed, match='^1 of 3 runs failed: seed=1: RuntimeError: the trunk is broken') as e:
        sweep(student(), dict(seed=[0, 1, 2]), tmp_path, progress=False)
    assert [r.name for r in e.value.table] == ['seed=0', 'seed=2'] and all(r.finished for r in e.value.table) and '\n' not in str(e.value)
    with pytest.raises(KeyboardInterrupt): sweep(student(), dict(seed=[9, 3]), tmp_path, progress=False)
    assert not (tmp_path / 'seed=3').exists()
    ran = command('sweep', '--config', tmp_path / 'seed=0', '--out', tmp_path, '--set', 'seed=0,1')
    assert ran.returncode == 1 and '| seed=0 |' in ran.stdout and '1 of 2 runs failed: seed=1: ' in ran.stderr, ran.stderr


def test_a_sweep_finds_its_runs_with_more_and_fewer_values(tmp_path):
    "lr=0.001,seed=0 and lr=0.001 are one run where the seed is 0: by its recipe, whatever its folder is called."
    table = sweep(student(), dict(lr=[.001, .003], seed=[0]), tmp_path, progress=False)
    when = {r.name: r.file.stat().st_mtime_ns for r in table}
    base = student(seed=0)
    fewer = sweep_recipes(base, dict(lr=[.003]))
    assert sweep_folders(fewer, tmp_path) == {'lr=0.003': tmp_path / 'lr=0.003,seed=0'}
    wide = sweep_folders(sweep_recipes(student(lr=.003), dict(seed=[0, 5])), tmp_path)
    assert wide == {'seed=0': tmp_path / 'lr=0.003,seed=0', 'seed=5': tmp_path / 'seed=5'}
    again = sweep(base, dict(lr=[.001, .003]), tmp_path, progress=False)
    assert {r.name: r.file.stat().st_mtime_ns for r in again} == when


def test_a_sweep_finds_runs_with_stages(tmp_path):
    "All stages decide: a run whose detector was trained otherwise is another one."
    import json
    from dataclasses import asdict
    from person_search_nb.presets import stage_recipes
    base = make_recipe('detector+idnet', SPEC, 'tiny')
    (first, detector), (_, last) = stage_recipes(base)
    for place, r in ((f'x=1/1-{first}', detector), ('x=1', replace(last, after='x'))):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / 'recipe.json').write_text(json.dumps(asdict(r)))
    rates = [getattr(detector.train, 'lr'), .123]
    places = sweep_folders(sweep_recipes(base, {f'{first}.lr': rates}), tmp_path)
    assert list(places.values()) == [tmp_path / 'x=1', tmp_path / f'{first}.lr=0.123']


def test_a_sweep_belongs_to_its_settings(tmp_path):
    sweep(student(), dict(seed=[0]), tmp_path, progress=False)
    with pytest.raises(OtherRun, match='another lr'): sweep(student(lr=.5), dict(seed=[0]), tmp_path, progress=False)
    table = sweep(student(lr=.5), dict(seed=[0]), tmp_path, progress=False, restart=True)
    assert len(table) == 1 and table[0].recipe.train.lr == .5 and (tmp_path / 'seed=0/old-1/recipe.json').exists()
    when = table[0].file.stat().st_mtime_ns
    sweep(student(lr=.5), dict(seed=[0]), tmp_path, progress=False, restart=True)  # finished as wanted: stays
    assert table[0].file.stat().st_mtime_ns == when


def swept(out, workers, more):
    "In a group of its own, as a terminal's command; its workers begin as copies, as it does."
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with it ignored
    multiprocessing.set_forkserver_preload(['torch._dynamo', 'person_search_nb.training_runs', 'person_search_nb.recipes'])
    sweep(student(**more), dict(seed=[0, 1]), out, workers=workers, progress=False)


def wait_for(what, process):
    begun = time.monotonic()
    while not what():
        assert process.is_alive() and time.monotonic() < begun + 120
        time.sleep(.05)


@pytest.mark.parametrize('workers, how', [(1, signal.SIGKILL), (2, signal.SIGINT)])
def test_a_sweep_that_is_ended_goes_on(workers, how, tmp_path, child):
    "Killed in the first run, or Ctrl-C in both: the second call ends with the losses of an unbroken one."
    long = dict(steps=24, checkpoint_every=2)
    first = tmp_path / 'out/seed=0/checkpoint.safetensors'
    process = child(swept, tmp_path / 'out', workers, long)
    log = lambda: (first.parent / 'log.csv').exists() and (first.parent / 'log.csv').read_text().count('\n') > 0
    wait_for(lambda: first.exists() and log(), process)
    time.sleep(.1)
    os.killpg(process.pid, how)
    process.join(120)
    assert process.exitcode and not (tmp_path / 'out/seed=0/done').exists()
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / 'out').rglob('done')}
    table = sweep(student(**long), dict(seed=[0, 1]), tmp_path / 'out', progress=False)
    assert [len(r.log) for r in table] == [24, 24] and all(p.stat().st_mtime_ns == t for p, t in before.items())
    whole = sweep(student(**long), dict(seed=[0]), tmp_path / 'whole', progress=False)
    assert [r['loss'] for r in table['seed=0'].log] == [r['loss'] for r in whole[0].log]


def test_two_workers_train_what_one_does(tmp_path, two):
    table = sweep(student(), dict(seed=[0, 1]), tmp_path / 'out', workers=2, progress=False)
    losses = lambda table: [row['loss'] for r in table for row in r.log]
    assert losses(table) == pytest.approx(losses(two[1]), rel=1e-4)


def by_hand(a, b, groups, draws, seed):
    "The interval with a loop over draws, groups and queries."
    people = np.unique(groups)
    weights = np.random.default_rng(seed).multinomial(len(people), np.full(len(people), 1 / len(people)), draws)
    means = []
    for w in weights:
        total = count = 0
        for p, times in zip(people, w):
            for q in np.flatnonzero(groups == p): total, count = total + times * (b[q] - a[q]), count + times
        means.append(total / count)
    return np.mean(b - a), *np.quantile(means, [.025, .975])


@pytest.mark.parametrize('seed', range(5))
def test_the_interval_equals_a_loop(seed):
    rng = np.random.default_rng(seed)
    a, b, groups = rng.random(17), rng.random(17), rng.integers(0, 6, 17)
    assert paired_interval(a, b, groups, draws=200, seed=seed) == pytest.approx(by_hand(a, b, groups, 200, seed), abs=1e-12)
    mean, low, high = paired_interval(np.stack([a, b], 1), np.stack([b, a], 1), groups, draws=200, seed=seed)
    assert mean[0] == -mean[1] and low[0] == pytest.approx(-high[1])


def test_a_comparison(two):
    out, table = two
    c = compare(out / 'seed=0', table[1], progress=False)
    assert c.names == ('seed=0', 'seed=1') and c.settings == dict(seed=(0, 1))
    aps = [{q['query']: q['AP'] for q in r.per_query()} for r in table]
    assert all(r['first'] == aps[0][r['query']] and r['second'] == aps[1][r['query']] for r in c.rows)
    assert c.difference['mAP'][0] == pytest.approx(table[1].evaluate()['mAP'] - table[0].evaluate()['mAP'])
    other = compare(table[1], table[0])
    assert other.difference['mAP'] == pytest.approx([-c.difference['mAP'][k] for k in (0, 2, 1)])
    assert len(c.won()) == len(other.lost()) and len(c.equal()) == len(other.equal())
    assert c.verdict() in repr(c) and '| mAP |' in repr(c) and c.setting_rows() == [{'setting': 'seed', 'seed=0': 0, 'seed=1': 1}]
    assert compare(table[0], table[0]).difference == dict(mAP=(0, 0, 0), top1=(0, 0, 0))
    forced = compare(*table, rules=dict(iou_threshold=.3))
    assert forced.searches[0].rules['iou_threshold'] == .3 and not forced.rules_note()


def test_rules_that_differ_are_said(two):
    c = compare(*two[1])
    c.searches[1].rules = c.searches[1].rules | dict(iou_threshold=.75)
    assert 'iou_threshold 0.5 and 0.75' in c.rules_note() and c.rules_note() in repr(c) and 'different rules' in c._repr_html_()


def test_other_queries_are_refused_before_anything_is_searched(two, monkeypatch):
    a, b = (Run(r.folder) for r in two[1])
    b.data = SPEC.replace('queries=4', 'queries=3')
    monkeypatch.setattr(Searcher, '_search', lambda *a, **k: pytest.fail('searched'))
    with pytest.raises(ValueError, match='not the same queries, so nothing can be paired') as e: compare(a, b)
    assert '(4 queries in 6 scenes)' in str(e.value) and '(3 in 6)' in str(e.value) and '\n' not in str(e.value)


def test_names_of_a_comparison_differ(two):
    one = Run(two[0] / 'seed=0', 'x'), Run(two[0] / 'seed=1', 'x')
    assert compare(*one).names == (str(two[0] / 'seed=0'), str(two[0] / 'seed=1'))
    assert len(set(compare(one[0], one[0]).names)) == 2


def test_the_commands(two, command, tmp_path):
    out, page = two[0], tmp_path / 'diff.html'
    listed = command('runs', out)
    assert listed.returncode == 0 and '| seed=1 | 1 |' in listed.stdout
    done = command('compare', out / 'seed=0', out / 'seed=1', '--device', 'cpu', '--out', page)
    assert done.returncode == 0 and '| mAP |' in done.stdout and str(page) in done.stdout.replace('\n', ''), done.stderr
    text = page.read_text()
    assert PAGE_MARK in text[:500] and text.count('data:image/png') >= 1 and '<table>' in text and 'http' not in text
    assert command('compare', out / 'seed=0', out / 'seed=1', '--device', 'cpu', '--out', page).returncode == 0  # its own page
    assert command('compare', out / 'seed=0', out / 'seed=1', '--device', 'cpu', '--data', SPEC.replace('queries=4', 'queries=3')).returncode == 0


@pytest.mark.parametrize('words, why', [
    (['runs', '{p}/none'], 'no such folder'), (['runs', '{p}'], 'no run in it'),
    (['compare', '{p}', '{p}'], 'is no run'), (['compare', '{a}', '{b}', '--out', '{p}/x.txt'], 'ends in .html'),
    (['compare', '{a}', '{b}', '--out', '{p}/mine.html'], 'would be lost'), (['compare', '{a}', '{p}/net.onnx'], 'was written by export'),
    (['compare', '{a}', '{b}', '--draws', '0'], 'draws'), (['compare', '{a}', '{b}', '--data', 'synth:none'], 'synth'),
    (['compare', 'shipped:hdl-student-fast', 'shipped:hdl-student-fast-taught'], 'give data=SPEC')])
def test_mistakes_on_the_command_line_are_one_line(words, why, two, command, tmp_path):
    (tmp_path / 'mine.html').write_text('<p>mine')
    done = command(*(w.format(p=tmp_path, a=two[0] / 'seed=0', b=two[0] / 'seed=1') for w in words))
    assert done.returncode == 1 and why in done.stderr and done.stderr.count('\n') == 1, done.stderr
    assert (tmp_path / 'mine.html').read_text() == '<p>mine'


def test_own_rows_of_an_ablation(tmp_path):
    rows = [Row('alone', 'hdl-student'), Row('taught', 'hdl-student', terms='pd', teacher=Row('teacher', 'hdl-teacher')), Row('alone, true boxes', of='alone', search='true boxes')]
    result = run_ablation('mine', SPEC, out=tmp_path / 'mine', rows=rows, student='hdl-student-fast', progress=False, **STEP)
    assert [r['label'] for r in result['rows']] == ['alone', 'taught', 'alone, true boxes'] and result['own'][1]['terms'] == 'pd'
    assert (tmp_path / 'mine/table.md').read_text().startswith('**mine**') and len(list((tmp_path / 'networks').iterdir())) == 3
    other = [*rows[:2], Row('alone, true boxes', of='taught', search='true boxes')]
    with pytest.raises(OtherRun, match='another own'): run_ablation('mine', SPEC, out=tmp_path / 'mine', rows=other, student='hdl-student-fast', progress=False, **STEP)


@pytest.mark.parametrize('name, rows, why', [
    ('mine', [], 'at least one row'), ('mine', [Row('a', 'oim'), Row('a', 'oim')], 'two names'), ('mine', [Row('', 'oim')], 'has no label'),
    ('mine', [Row('a', 'oim', of='b')], 'leave one out'), ('mine', [Row('a', of='b')], 'no row that trains'), ('mine', [Row('a', 'oim', length_of='b')], 'length_of'),
    ('mine', ['a'], 'is no Row.*from person_search_nb.paper_tables import Row'), ('mine', 5, 'rows=5 is no list of rows.*import Row'), ('mine', {'a': dict(lr=.1)}, 'is no list of rows'), ('mine', [Row('a', 'oim', dict(lrr=1))], "no setting 'lrr'"), ('mine', [Row('a', 'none')], 'none'),
    ('mine', [Row('a', 'hdl-student', terms='xd', teacher=Row('t', 'hdl-teacher'))], 'not of fd ad pd'), ('table6', [Row('a', 'oim')], 'is a table of a paper'), ('a/b', [Row('a', 'oim')], 'letters')])
def test_own_rows_are_checked_before_training(name, rows, why, tmp_path):
    with pytest.raises(ValueError, match=why): run_ablation(name, SPEC, out=tmp_path / 'out', rows=rows, progress=False, **STEP)
    assert not (tmp_path / 'out').exists()
