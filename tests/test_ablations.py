"Every table of the papers by its name: what each row starts from at every preset, and one step of each row, to its table and plot."
import json
from dataclasses import replace
from functools import cache

import pytest
import torch

from person_search_nb.datasets import open_dataset
from person_search_nb.evaluation import protocol_of
from person_search_nb.streets import SYNTH
from person_search_nb.synthetic import write_dataset
from person_search_nb.model_files import shipped_trunk
from person_search_nb.warm_start import read_state, warm_start
from person_search_nb.models import build_model, load_model
from person_search_nb.presets import make_recipe, stage_recipes
from person_search_nb.recipes import build_started
from person_search_nb.paper_tables import Row, Table
from person_search_nb.tables import TABLES
from person_search_nb.ablation_rows import _gallery_sizes, measure, network_of, overridden, Plan
from person_search_nb.ablation_rows import search_features, train_all
from person_search_nb.ablations import ablation_table, list_tables, run_ablation
from person_search_nb.bench_commands import ablate

pytestmark = pytest.mark.usefixtures('no_curves')
SPEC = 'synth:tiny?train_scenes=4&test_scenes=4&train_ids=4&test_ids=4&queries=2&gallery=3&size=96x160'
STEP = dict(width=0.125, rpn_channels=16, start='', imprint=False, steps=1, warmup=0, precision='fp32', device='cpu', batch_size=2, rois_per_image=4, proposals=(12, 8),
            search_threshold=0., augment=None)
CUTS = {f'{stage}.{k}': v for stage in ('cutouts',) for k, v in dict(crops=(64, 48), batch_size=8).items()}
MODELS_OF = {name: [r for row in t.rows for r in (row, row.teacher, row.detector) if r and r.model] for name, t in TABLES.items()}


@cache
def recipes(name, data, preset):
    "(row, stage name, recipe) of every training of a table."
    plan = Plan(data, preset)
    return [(row, stage, r) for row in MODELS_OF[name] for stage, r in stage_recipes(plan.recipe(row, TABLES[name].rows))]


@pytest.mark.parametrize('name', list(TABLES))
@pytest.mark.parametrize('preset', ['paper', 'fast', 'tiny'])
def test_every_row_starts_from_where_its_preset_says(name, preset):
    "ImageNet for every trunk that has it, also in the stages; at `tiny` a shipped trunk, all of whose weights fit; a row changes nothing of that."
    data = 'synth:tiny' if preset == 'tiny' else 'cuhk-sysu:PATH'
    for row, stage, r in recipes(name, data, preset):
        assert 'start' not in row.settings
        trunk = r.net.get('trunk', 'resnet50' if r.model in ('hdl-teacher', 'oim', 'oim-hdl', 'qeeps', 'clsa', 'faster-rcnn-r50', 'detector') else '')
        if preset != 'tiny': assert r.start == ('' if r.model.startswith('hdl-student') else 'imagenet'), (row.label, stage)
        elif r.model == 'hdl-teacher': assert r.start == 'shipped'
        elif trunk == 'resnet50' and not (r.model == 'attention-embedding' and 'trunk' not in r.net): assert r.start == 'shipped:hdl-teacher', (row.label, stage)
        else: assert r.start == '', (row.label, stage, r.start)


@cache
def trunk_of(start): return read_state(shipped_trunk(start))


@cache
def fits(model, net, start):
    "Whether a file's trunk has every convolution of a network's trunk in its shape; tables share networks."
    with torch.device('meta'): model = build_model(model, 3, **json.loads(net))
    state = trunk_of(start)
    own = {k: v for k, v in model.state_dict().items() if k.startswith(('stem.', 'blocks.')) and v.ndim == 4}
    return own and all(k in state and state[k].shape == v.shape for k, v in own.items())


@pytest.mark.parametrize('name', list(TABLES))
def test_shipped_trunks_fit_every_row_at_tiny(name):
    for row, stage, r in recipes(name, 'synth:tiny', 'tiny'):
        net = {k: v for k, v in r.net.items() if k not in ('dim', 'teach')}
        if r.start: assert fits(r.model, json.dumps(net), r.start.partition(':')[2] or r.model), (row.label, stage)


def test_a_trunk_of_another_width_is_an_error_with_both_shapes_and_the_mend():
    "The full-width network that took 58 counters and biases of a quarter-width file, and trained from random numbers."
    recipe = make_recipe('oim', 'synth:tiny', 'tiny', width=1., rpn_channels=16)
    assert recipe.start == 'shipped:hdl-teacher'
    with pytest.raises(ValueError, match=r'\(16, 3, 7, 7\) in the file, \(64, 3, 7, 7\) in this network; set the width'): build_started(recipe, 5)


def test_only_weights_count_as_a_start(tmp_path):
    net = build_model('hdl-teacher', 5, width=0.125)
    small = {k: v for k, v in net.state_dict().items() if v.ndim < 2}                   # hundreds of tensors that fit: counters, biases, norms
    torch.save(small, tmp_path / 'small.pth')
    with pytest.raises(ValueError, match='convolution or linear'): warm_start(build_model('hdl-teacher', 5, width=0.125), tmp_path / 'small.pth')


@pytest.fixture(scope='module')
def networks(tmp_path_factory): return tmp_path_factory.mktemp('networks')


OFTEN = ['table5', 'table7', 'table8', 'figure6', 'e2e-table3', 'e2e-figure5', 'e2e-figure6', 'e2e-figure7a', 'e2e-figure7b', 'clsa-figure6c', 'attention-table1', 'kd-e2e-levels',
         'qeeps']  # every kind of row and curve, in ten to twenty seconds each; the others are marked slow: `pytest -m slow tests/test_ablations.py`


@pytest.mark.parametrize('name', [name if name in OFTEN else pytest.param(name, marks=pytest.mark.slow) for name in TABLES])
def test_one_step_of_every_row(name, networks, tmp_path):
    "All networks of a table train for a step, all rows search, and table and plot are written; tables share what they can."
    given = STEP | CUTS
    result = run_ablation(name, SPEC, out=tmp_path / name, networks=networks, student='hdl-student-fast', progress=False, **given)
    assert [r['label'] for r in result['rows']] == [r.label for r in TABLES[name].rows]
    for r in result['rows']:
        assert 0 <= r['mAP'] <= 1 and r['start'] and all(t.startswith('start: ') for t in r['start'])
    for file in ('table.md', 'results.json', 'plot.png'): assert (tmp_path / name / file).stat().st_size > 100
    text = (tmp_path / name / 'table.md').read_text()
    assert text.startswith(f'**{TABLES[name].title}**') and 'here (and at preset paper)' in text and text.count('\n|') == len(TABLES[name].rows) + 2
    assert all(sentence in text for sentence in TABLES[name].differs) and all(row in text for row in TABLES[name].left_out)
    kept = json.loads((tmp_path / name / 'results.json').read_text())
    assert kept['rows'][0]['start'] and 'random weights' in kept['rows'][0]['start'][-1]
    if TABLES[name].curve in ('gallery sizes', 'detector recall', 'precision-recall'): assert all('curve' in r['runs'][0] for r in result['rows'] if 'guided' not in r['label'])
    if TABLES[name].curve == 'subsets': assert all({'occluded', 'low_resolution'} <= set(r['runs'][0]['subsets']) for r in result['rows'])


def test_a_second_call_trains_nothing(networks, tmp_path, monkeypatch):
    first = run_ablation('table7', SPEC, out=tmp_path / 'a', networks=networks, progress=False, **STEP)
    monkeypatch.setattr('person_search_nb.recipes.run_recipe', lambda *a, **k: pytest.fail('trained again'))
    again = run_ablation('table7', SPEC, out=tmp_path / 'b', networks=networks, progress=False, **STEP)
    assert [r['mAP'] for r in again['rows']] == [r['mAP'] for r in first['rows']]


def test_what_is_given_wins_over_rows_and_is_said(networks, tmp_path, capsys):
    assert overridden(Row('a', 'oim', dict(id_loss='oim')), dict(id_loss='softmax')) == ['id_loss']
    run_ablation('table7', SPEC, out=tmp_path, networks=networks, **STEP, id_loss='softmax')
    assert 'centre: id_loss as given for all rows' in capsys.readouterr().out


def test_printed_numbers_stand_beside_their_data_set_only():
    rows = [dict(label=r.label, paper=r.paper, start=[''], mAP=.1, top1=.1, runs=[dict(mAP=.1, top1=.1)]) for r in TABLES['table5'].rows]
    table = lambda data: ablation_table(dict(title='t', head=[], rows=rows, measure='mAP', data=data))
    prw, synth, coco = (table(d) for d in ('prw:PATH', 'synth:tiny', 'cuhk-sysu:PATH'))
    assert 'paper, prw, mAP' in prw and '26.3' in prw and '63.8' not in prw
    assert 'printed, of other data: cuhk-sysu, mAP' in synth and 'paper, ' not in synth
    assert 'paper, cuhk-sysu, mAP' in coco and '63.8' in coco and '26.3' not in coco


def test_a_size_of_the_gallery_with_a_list_is_searched_by_that_list(tmp_path):
    "The point of a curve is the protocol's own score, whatever order its queries have; other sizes, and lists of other queries, are drawn."
    scipy_io = pytest.importorskip('scipy.io')
    world = replace(SYNTH['tiny'], size=(96, 160), train_scenes=4, test_scenes=24, train_ids=6, test_ids=16, queries=8, gallery=12, cameras=2)
    spec = f"cuhk-sysu:{write_dataset(world, tmp_path / 'set', workers=1, galleries=(6, 12), progress=False)}"
    file = tmp_path / 'set/annotation/test/train_test/TestG6.mat'
    scipy_io.savemat(file, dict(TestG6=scipy_io.loadmat(file)['TestG6'][:, ::-1]))  # its queries the other way round
    row, plan = Row('network', 'hdl-teacher', dict(attention='none')), Plan(spec, 'tiny', settings=STEP | dict(detections=8))
    network = network_of(row, plan, tmp_path / 'networks')
    train_all([network], progress=False)
    curve = measure(row, network, TABLES['figure6'], spec)['curve']
    assert list(curve) == ['6', '10', '12', '23']
    alone = {n: measure(row, network, Table('one size', (row,), ('cuhk-sysu',), options={'cuhk-sysu': f'gallery={n}'}), spec) for n in ('6', '12', 'full')}
    for n, at in (('6', '6'), ('12', '12'), ('full', '23')):
        assert {k: curve[at][0][k] for k in ('mAP', 'top1', 'top5', 'queries')} == {k: alone[n][k] for k in ('mAP', 'top1', 'top5', 'queries')}
    gallery, queries = (open_dataset(spec + '?gallery=full', s, progress=False) for s in ('gallery', 'query'))
    net = load_model(network.file)
    given = *search_features('', net, gallery, queries, None), gallery, queries, protocol_of(net)
    drawn = _gallery_sizes(*given)
    assert list(drawn) == ['10', '23'] and drawn['10'] == curve['10']
    other = open_dataset(spec + '?gallery=6', 'query', progress=False)
    other.boxes = other.boxes + 1
    assert _gallery_sizes(*given, {6: other}) == drawn


def test_rows_share_networks_and_stages(tmp_path):
    plan = Plan('cuhk-sysu:PATH', 'paper')
    nets = lambda name: [network_of(r, plan, tmp_path, TABLES[name].rows) for r in TABLES[name].rows if r.model]
    clsa = [n for name in ('clsa-table4', 'clsa-table6', 'clsa-table7', 'clsa-figure6c', 'clsa-table2') for net in nets(name) for n in net.chain()]
    assert len({n.folder for n in clsa if n.recipe.model == 'detector'}) == 1                # the detector of 110,000 steps is trained once
    assert {n.folder for n in nets('table6')} & {n.folder for n in nets('table5')}
    five = [net.chain()[0].folder for net in nets('clsa-table5')]
    assert len(set(five)) == len(five)                                                      # Table 5 is about the detector


def test_the_command_lists_tables_and_starts_rows_from_the_trunks_they_name(tmp_path, capsys):
    ablate(list=True)
    listed = capsys.readouterr().out
    assert listed.strip() == list_tables() and all(f'{name}: ' in listed for name in TABLES)
    with pytest.raises(ValueError, match='--list'): ablate()
    with pytest.raises((ValueError, OSError), match='trunks.googlenet.safetensors'):
        ablate('attention-table2', SPEC, out=str(tmp_path), trunks=str(tmp_path / 'trunks'), set=['width=0.125', 'device=cpu'])
