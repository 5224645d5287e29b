"The scripts that make trunks (.ci/trunks.py) and claims (benchmarks/claims.py): they run in miniature, go on, and train what they say."
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from person_search_nb.ablation_rows import network_of, Plan
from person_search_nb.datasets import open_dataset
from person_search_nb.model_files import load_trunk
from person_search_nb.models import build_model, load_model
from person_search_nb.showcase import Moments

TINY = 'synth:tiny?train_scenes=8&test_scenes=8&train_ids=8&test_ids=4&queries=2&gallery=4&cameras=2'


@pytest.fixture
def script(root, monkeypatch):
    "A script of the project as a module."
    def load(path):
        spec = importlib.util.spec_from_file_location(Path(path).stem, root / path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module
    return load


@pytest.fixture
def trunks(script): return script('.ci/trunks.py')


def test_a_trunk_is_made_with_its_card_and_starts_another_network(trunks, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trunks, 'FRESH', TINY)
    short = dict(trunks.TRUNKS['resnet18'].model, dim=32)  # sixteen scenes have too few people for more
    monkeypatch.setitem(trunks.TRUNKS, 'resnet18', replace(trunks.TRUNKS['resnet18'], model=short))
    call = ['trunks', 'resnet18', '--how', 'taught', '--scenes', '16', '--steps', '.002', '--out', str(tmp_path / 'out'), '--work', str(tmp_path / 'work')]
    monkeypatch.setattr(sys, 'argv', call)
    trunks.main()
    assert 'resnet18, taught: about 0.0 hours' in capsys.readouterr().out
    file = tmp_path / 'out/taught/resnet18.safetensors'
    card = file.with_suffix('.md').read_text()
    assert '2 steps on cut-outs' in card and 'prediction distillation' in card and 'mAP 0.' in card and 'Not for' in card
    made = load_model(file).state_dict()
    started = load_trunk(build_model(**short, num_ids=7), file).state_dict()
    deep = [k for k in made if made[k].ndim == 4 and 'rpn' not in k]
    assert len(deep) > 15 and all(torch.equal(made[k], started[k]) for k in deep)
    when = file.stat().st_mtime_ns
    trunks.main()  # what is there is not made again
    assert 'resnet18, taught: is there' in capsys.readouterr().out and file.stat().st_mtime_ns == when


def test_what_ships_has_a_card_and_is_small(trunks):
    "A card says what a network is and is not for; together they stay under 20 MB."
    files = sorted(trunks.shipped_trunk('hdl-teacher').parent.glob('*.safetensors'))
    assert len(files) >= 5 and sum(f.stat().st_size for f in files) < 20e6
    for file in files:
        card = file.with_suffix('.md').read_text()
        assert card.startswith(f'# {file.stem.replace("-taught", "")}, ') and 'Not for' in card and 'queries, one world' in card
        net, trunk = load_model(file), trunks.TRUNKS[file.stem.replace('-taught', '')]
        assert net.config['name'] == trunk.model['name'] and net.size == trunk.scene and f"{sum(p.numel() for p in net.parameters()):,} parameters" in card


def test_every_trunk_can_be_built_and_described(trunks):
    "With and without attention, the trunks of Table 5 differ in nothing else."
    for name, trunk in trunks.TRUNKS.items():
        with torch.device('meta'): assert build_model(**trunk.model, num_ids=1).id_loss.dim
    for name in ('hdl-student', 'hdl-student-fast'):
        plain, none = trunks.TRUNKS[name], trunks.TRUNKS[f'{name}-no-attention']
        assert none.model == plain.model | dict(attention='none') and none.stages == plain.stages


def test_a_window_keeps_people_where_they_are(trunks):
    "Boxes move with the picture, are cut at its border, and go where less than half of them is left."
    torch.manual_seed(0)
    for _ in range(20):
        x, box = torch.zeros(1, 3, 40, 60), torch.tensor([[10., 8., 18., 28.], [0., 0., 60., 40.]])
        x[0, :, 8:28, 10:18] = 1
        target = dict(boxes=box, person_id=torch.tensor([3, 4]))
        part = trunks.windowed(x, [target], (32, 36))
        assert part.shape == (1, 3, 32, 36) and 4 not in target['person_id'].tolist()  # 0.48 of the second is left
        seen = part[0, 0].sum() / (8 * 20)
        assert (3 in target['person_id']) == bool(seen >= .5)
        for x1, y1, x2, y2 in target['boxes'].int().tolist(): assert part[0, 0, y1:y2, x1:x2].all() and part[0, 0].sum() == (x2 - x1) * (y2 - y1)


def test_a_broken_stage_goes_on(trunks, tmp_path, monkeypatch):
    "From the last checkpoint, to the weights of a run that was not broken."
    monkeypatch.setattr(trunks, 'KEPT', 2)
    def run(keep, stop=None):
        torch.manual_seed(0)
        model, steps = torch.nn.Linear(3, 1), []
        def losses():
            if len(steps) == stop: raise KeyboardInterrupt
            steps.append(0)
            return dict(id=model(torch.randn(4, 3)).square().mean())
        try: trunks.optimise(model, 6, 1e-2, 'toy', losses, keep)
        except KeyboardInterrupt: pass
        return model.weight.detach(), len(steps)
    whole, _ = run(tmp_path / 'a.pt')
    run(tmp_path / 'b.pt', stop=3)
    again, steps = run(tmp_path / 'b.pt')
    assert torch.equal(whole, again) and steps == 4


def networks(claims, claim, folder):
    rows = claim.with_settings(1., 'trunks').rows
    plan = Plan(claim.world.replace('{seed}', '0'), 'tiny', 0, claim.student_model)
    assert {label for pair in claim.gains for label in pair} <= {r.label for r in rows}
    return [network_of(r, plan, folder, rows) for r in rows if r.model]


def test_claims_train_what_they_say(script, tmp_path):
    "HDL's students have the printed loss, and start from random weights where nothing may hide it; the teacher of all rows is one network."
    claims = script('benchmarks/claims.py')
    for name, claim in claims.CLAIMS.items():
        nets = networks(claims, claim, tmp_path)
        students = [n.recipe for n in nets if n.recipe.model == claim.student_model]
        assert all(not r.hinton and r.temperature == 4. and r.lambdas[0] in (0., .9) for r in students if r.teacher)
        if claim.table in ('table2', 'figure6'): assert {'oim-hdl'} == {n.recipe.model for n in nets if 'oim' in n.recipe.model}  # as the page says
        if claim.table not in ('table5', 'table6'): continue
        assert students and all((r.start, r.imprint, r.train.epochs) == ('', False, 20. if name == 'table6-longer' else 10.) for r in students)
        of = {n.recipe.teacher for n in nets if n.recipe.teacher}
        if claim.table == 'table6': assert len(students) == len(claim.only or range(8)) and len(of) == 1
        if claim.table == 'table6' and not claim.only:
            assert of == {n.file for n in nets if n.recipe.model == 'hdl-teacher'} and len({r.lambdas for r in students if r.teacher}) == 7


def test_claims_start_from_the_trunk_of_their_row(script, tmp_path, monkeypatch):
    "Each row from its own backbone, every stage of it; HDL's teacher from the trunk that ships; CLSA from one that learned from no pyramid. Without trunks it says how to make them."
    claims = script('benchmarks/claims.py')
    starts = lambda name: {(r.model, r.start) for n in networks(claims, claims.CLAIMS[name], tmp_path) for r in [m.recipe for m in n.chain()]}
    assert starts('e2e-table2') == {(m, 'trunks/taught/vgg16.safetensors') for m in ('e2e-rss', 'detector', 'detector+idnet')}
    assert starts('clsa-table4') == {(m, 'trunks/labels/resnet50.safetensors') for m in ('clsa', 'detector')}
    assert {start.rpartition(':')[2].replace('-taught', '') for _, start in starts('attention-table2')} == {'googlenet', 'resnet50', 'trunks/taught/densenet121.safetensors'}
    assert {('hdl-teacher', 'shipped'), ('oim', 'shipped:resnet18-taught')} < starts('kd-e2e-resnet18')
    mine = tmp_path / 'taught/resnet18.safetensors'
    mine.parent.mkdir(); mine.touch()
    assert claims.start('taught/resnet18', tmp_path) == str(mine)  # one's own goes first
    monkeypatch.setattr(sys, 'argv', ['claims', 'attention-table2', '--trunks', str(tmp_path)])
    with pytest.raises(SystemExit, match='taught/densenet121 missing; .*trunks.py densenet121 .*--how taught'): claims.main()


def test_what_a_claim_says(script):
    "A gain shows where every seed has it."
    claims = script('benchmarks/claims.py')
    row = lambda label, *runs, **paper: dict(label=label, runs=[dict(mAP=m) for m in runs], paper=paper)
    result = dict(measure='mAP', rows=[row('plain', .1, .2, .1, cuhk=dict(mAP=45.1)), row('taught', .2, .25, .2, cuhk=dict(mAP=62.6)), row('other', .2, .1, .1)])
    assert claims.verdict(result, 'taught', 'plain') == 'taught over plain: +8.3 (+5.0 to +10.0), **shows in every seed** (paper: +17.5)'
    assert 'the reverse shows' in claims.verdict(result, 'plain', 'taught')
    assert claims.verdict(result, 'other', 'plain') == 'other over plain: +0.0 (-10.0 to +10.0), **does not show** beyond the seeds'


def test_a_claim_runs_and_has_its_section(root, script, tmp_path, monkeypatch, capsys):
    claims = script('benchmarks/claims.py')
    small = dict(width=.125, rpn_channels=16, rois_per_image=4, proposals=(12, 8), start='', imprint=False, epochs=.5, device='cpu', precision='fp32')
    monkeypatch.setitem(claims.CLAIMS, 'table7', replace(claims.CLAIMS['table7'], settings={'': small}, measures=claims.BOTH, world=TINY + '&seed={seed}&size=64x112'))
    def call(*args):
        monkeypatch.setattr(sys, 'argv', ['claims', *args, '--out', str(tmp_path)])
        claims.main()
    call('table7', '--seeds', '3')
    said = capsys.readouterr().out
    assert '* softmax over centre: ' in said and '* detection AP, softmax over centre: ' in said
    call('--page', str(tmp_path / 'page.md'))
    text = (tmp_path / 'page.md').read_text()
    assert '## HDL, Table 7: identity losses' in text and 'of the centre loss' in text and '(paper: +15.5)' in text and '3 networks of 1 steps' in text
    assert '| softmax + centre |' in text and '**Result.** Of 4 comparisons' in text
    older = (root / 'benchmarks/claims.md').read_text()
    (tmp_path / 'page.md').write_text(older)
    call('--page', str(tmp_path / 'page.md'))  # the tables of other machines stay as they are
    new, old = (claims.sections(t) for t in ((tmp_path / 'page.md').read_text(), older))
    measured = claims.title('table7')
    assert new.keys() == old.keys() | {measured} and all(new[t] == old[t] for t in old.keys() - {measured}) and new[measured] in text
    assert list(new) == [t for t in dict.fromkeys(map(claims.title, claims.CLAIMS)) if t in new]
    (tmp_path / 'page.md').write_text('## Of another time')
    with pytest.raises(SystemExit, match='Of another time: a table of the page that no claim makes'): call('--page', str(tmp_path / 'page.md'))


def test_moments_in_miniature(script, tmp_path, monkeypatch):
    "Two trainings of four steps, with their card; a second run finds them and makes the same networks."
    moments = script('.ci/moments.py')
    small = TINY + '&size=96x160'
    how = replace(moments.HOW, data=small, student_epochs=2 * moments.HOW.batch_size / 4)
    scenes = open_dataset(small, 'gallery', progress=False)
    for name, value in dict(HOW=how, MOMENTS=(0, 1, 2, 4), FRESH=small, demo_scenes=lambda: scenes).items(): monkeypatch.setattr(moments, name, value)
    monkeypatch.setattr(sys, 'argv', ['moments', '--out', str(tmp_path / 'out'), '--work', str(tmp_path / 'work')])
    moments.main()
    files = [tmp_path / 'out' / f'taught-{k}.safetensors' for k in range(2)]
    kept = Moments(*files)
    assert list(kept) == ['untrained', 'step 1', 'step 2', 'finished'] and [r['step'] for r in kept.rows] == [0, 1, 2, 4]
    assert all({'FD', 'AD', 'mAP', 'top1'} <= r.keys() for r in kept.rows) and kept.gallery('finished', scenes) is not None
    first, last = kept['untrained'].state_dict(), kept['finished'].state_dict()
    assert any(not torch.equal(first[k], last[k]) for k in first if first[k].ndim == 4)
    assert load_model(tmp_path / 'out/alone.safetensors').config['num_ids'] == 1
    card = (tmp_path / 'out/README.md').read_text()
    assert '| finished | 4 | ' in card and '| twin without a teacher | 4 | ' in card and '4 steps' in card
    moments.main()
    again = Moments(*files)
    assert again.rows == kept.rows and all(torch.equal(v, last[k]) for k, v in again['finished'].state_dict().items())


def test_a_claim_over_the_size_of_the_gallery(script):
    "Compared with few scenes and with all of them; a table for every number of scenes."
    claims = script('benchmarks/claims.py')
    row = lambda label, *curves: dict(label=label, paper=dict(cuhk=dict(mAP=1.)), runs=[dict(mAP=.9, curve={n: [dict(mAP=m)] for n, m in c.items()}) for c in curves])
    result = dict(measure='mAP', rows=[row('plain', {'10': .5, '100': .2}, {'10': .6, '100': .4}), row('taught', {'10': .6, '100': .5}, {'10': .5, '100': .5})])
    assert claims.verdict(claims.with_scenes(result, '100'), 'taught', 'plain') == 'taught over plain: +20.0 (+10.0 to +30.0), **shows in every seed**'
    assert claims.verdict(claims.with_scenes(result, '10'), 'taught', 'plain').endswith('(-10.0 to +10.0), **does not show** beyond the seeds')
    assert claims.over_sizes(result, ['10', '100']).splitlines()[1:] == ['| scenes searched | plain | taught |', '|---|---|---|', '| 10 | 55.0 (50.0–60.0) | 55.0 (50.0–60.0) |', '| 100 | 30.0 (20.0–40.0) | 50.0 (50.0–50.0) |']
    with pytest.raises(KeyError): claims.over_sizes(result | dict(measure='top1'), ['10'])  # the figure's own measure
