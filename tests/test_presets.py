"Preset `paper` holds what the papers print; no setting is without a source; what is given wins; schedules are in the paper's unit."
import re

import pytest
import torch

from person_search_nb.models import build_model, list_models, model_settings
from person_search_nb.recipe_settings import RECIPE_FIELDS, TRAIN_FIELDS, change
from person_search_nb.preset_rules import PRESETS
from person_search_nb.presets import differences, fingerprint, make_recipe, preset_table
from person_search_nb.presets import rules_for, source_of, stage_recipes, values
from person_search_nb.bench_commands import presets as presets_command

CUHK, PRW = 'cuhk-sysu:PATH', 'prw:PATH'
FASTER_RCNN = dict(rpn_high=0.7, rpn_low=0.3, rpn_batch=256, rpn_nms=0.7, rois_per_image=128, positive_fraction=0.25, positive_iou=0.5, background_iou=0.5, nms_threshold=0.3,
                   detections=100, proposals=(2000, 300), pre_nms=(12000, 6000), min_size=16., clip=0., warmup=0, whole_anchors=True)
OIM = dict(batch_size=2, lr=0.001, steps=50_000, milestones=(40_000,), freeze=1, norm='frozen-trunk', cut=3, roi_op='pool', roi_size=14, norms=False, oim_scale=10.,
           nms_threshold=0.4, queue=5000, start='imagenet', id_loss='oim')
PRINTED = {  # what the papers print, by hand: section 4 of HDL, and so on
    ('hdl-teacher', CUHK): dict(size='hdl-cuhk-sysu', batch_size=8, lr=0.005, epochs=60, milestones=(50,), gamma=0.1, momentum=0.9, weight_decay=5e-4, optimizer='sgd',
                                attention='arm', roi_size=7, rpn_channels=512, anchor_spacing='quantile', start='imagenet') | FASTER_RCNN,
    ('hdl-teacher', PRW): dict(size='hdl-prw', batch_size=4),
    ('hdl-student', CUHK): dict(epochs=150, milestones=(50, 100), gamma=0.2, lambdas=(0.9, 2e4, 2e3), temperature=4., hinton=False, head_padding=1, start='', clip=0., augment=None),
    ('oim', CUHK): OIM, ('oim', PRW): OIM | dict(queue=500),
    ('oim-hdl', CUHK): dict(batch_size=8, lr=0.005, epochs=60, size='hdl-cuhk-sysu', norms=True, roi_op='align', freeze=0, oim_scale=10.),
    ('qeeps', CUHK): dict(pairs=True, size='attention-embedding') | {k: v for k, v in OIM.items() if k != 'id_loss'},
    ('e2e-rss', CUHK): FASTER_RCNN | dict(batch_size=2, lr=0.001, steps=120_000, milestones=(100_000,), rss_classes=100, roi_op='pool', matching='euclidean', search_threshold=0.,
                                          min_height=50., start='imagenet', dim=256, freeze=2, nms_threshold=0.4),
    ('e2e-rss', PRW): dict(steps=120_000, milestones=(100_000,), min_height=0.),
    ('attention-embedding', CUHK): FASTER_RCNN | dict(lr=0.001, epochs=50, milestones=(25,), positive_iou=0.75, background_iou=0.75, box_iou=0.5, iou=0.75, queue=2048, roi_op='pool',
                                                      roi_size=14, augment='attention-embedding', oim_scale=10., norms=False),
    ('clsa', PRW): dict(lr=0.01, weight_decay=1e-5, batch_size=64, epochs=100, milestones=(40, 80), crops=(256, 128), crops_from='true+found', align_temperature=3., levels=(1, 2, 3),
                        detections=256),
    ('detector+idnet', CUHK): dict(crops=(224, 224), batch_size=256, search_threshold=0., min_height=50., refine=False, freeze=2, nms_threshold=0.4, steps=30_000, milestones=(20_000,)),
}


@pytest.mark.parametrize('model,data', PRINTED, ids=lambda x: str(x))
def test_paper_holds_what_the_paper_prints(model, data):
    found, want = values(make_recipe(model, data)), PRINTED[model, data]
    assert {k: found[k] for k in want} == want


def test_stages_hold_what_the_papers_print():
    (e2e,), (clsa,), (idnet,) = (make_recipe(m, PRW).stages for m in ('e2e-rss', 'clsa', 'detector+idnet'))
    cutouts = dict(crops=(224, 224), batch_size=256, id_loss='softmax+background', steps=30_000, milestones=(20_000,))
    assert {k: e2e[k] for k in cutouts} == cutouts
    alone = {preset: values(make_recipe('e2e-rss', PRW, f'{preset}-crops')) for preset in ('paper', 'fast', 'tiny')}
    assert {k: alone['paper'][k] for k in cutouts} == cutouts and all(v['id_loss'] == 'softmax+background' for v in alone.values())
    want = dict(model='detector', batch_size=1, lr=0.001, weight_decay=1e-4, steps=110_000, milestones=(30_000, 60_000, 90_000), freeze=2, norm='frozen-backbone', rois_per_image=256,
                proposals=(2000, 256), min_size=1., start='imagenet')
    assert {k: clsa[k] for k in want} == want
    assert {k: idnet[k] for k in ('model', 'trunk', 'steps', 'milestones')} == dict(model='detector', trunk='vgg16', steps=120_000, milestones=(100_000,))
    deep = values(stage_recipes(make_recipe('detector+idnet', CUHK))[0][1])
    assert not deep['refine'] and deep['lr'] == 0.001 and deep['min_height'] == 50. and deep['freeze'] == 2 and deep['nms_threshold'] == 0.4


@pytest.mark.parametrize('model', list_models())
def test_no_setting_is_without_a_source(model):
    for preset in ('paper', 'fast', 'tiny', 'tiny-crops'):
        for data in (CUHK, PRW, 'duke:PATH', 'synth:tiny'):
            recipe, rules = make_recipe(model, data, preset), rules_for(model, data, preset)
            for name in values(recipe):
                said = source_of(name, recipe, rules)
                assert said.strip() and not (preset == 'paper' and 'default' in said), name  # what a paper's preset holds is said by rule
    table = preset_table(model, CUHK)
    for name in values(make_recipe(model, CUHK)):
        if name != 'stages': assert f'| `{name}` |' in table


def test_every_rule_is_of_use():
    "A rule's settings may not belong to all of its models, but a misspelt one belongs to none."
    known = {m: {*RECIPE_FIELDS, *TRAIN_FIELDS, *model_settings(m)} for m in list_models()}
    for preset, rules in PRESETS.items():
        for r in rules:
            assert r.source.strip() and r.settings
            for data in r.data.split():
                scheme = {'*': CUHK, 'synth': 'synth:tiny'}.get(data, f'{data}:PATH')
                of = [m for m in list_models() for t in ('resnet50', 'vgg16', '') if r in rules_for(m, scheme, preset, dict(trunk=t) if t else {})]
                assert of, f'{preset}: {r.models} fits no model'
                assert all(any(k in known[m] for m in of) for k in r.settings), (preset, r)


def test_what_is_given_wins_in_all_stages():
    mine = make_recipe('clsa', CUHK, lr=0.5, start='mine.safetensors', epochs=3)
    assert (mine.train.lr, mine.start, mine.train.epochs) == (0.5, 'mine.safetensors', 3)
    (first,) = mine.stages
    assert (first['lr'], first['start'], first['epochs'], first.get('steps', 0)) == (0.5, 'mine.safetensors', 3, 0)
    assert not first.get('crops')                                                       # what a stage is does not change
    assert make_recipe('e2e-rss', 'synth:tiny', 'tiny', crops=(64, 32)).stages == ()    # a training of one's own on cut-outs
    with pytest.raises(ValueError, match='did you mean'): make_recipe('clsa', CUHK, **{'detector.lrr': 1.})


def test_a_run_in_the_other_unit_keeps_its_drops():
    r = make_recipe('e2e-rss', PRW, epochs=12.)
    assert r.train.steps == 0 and r.train.milestones == (10.,)
    r = change(make_recipe('hdl-teacher', CUHK), steps=600)
    assert r.train.milestones == (500,) and r.train.lr_at(499, 7) > r.train.lr_at(500, 7) * 9 and r.train.total(7) == 600


def test_fingerprints_tell_recipes_apart_and_machines_not():
    a = make_recipe('clsa', CUHK)
    assert fingerprint(a) == fingerprint(change(a, device='cuda', workers=4, compile=True))
    assert len({fingerprint(change(a, **kw)) for kw in ({}, dict(lr=1.), dict(levels=(3,)), dict(seed=1), dict(start=''))}) == 5
    for k in ('after', 'teacher'): assert fingerprint(change(a, **{k: 'here/x/model.safetensors'})) == fingerprint(change(a, **{k: 'there/x/model.safetensors'}))


def test_paper_differs_from_itself_in_nothing_and_tiny_in_what_is_known():
    assert not any(differences(make_recipe(m, CUHK)) for m in list_models() if m != 'detector')
    tiny = differences(make_recipe('hdl-student', 'synth:tiny', 'tiny'))
    assert tiny['lambdas'] == ((0.5, 4e2, 1e2), (0.9, 2e4, 2e3)) and tiny['hinton'] == (True, False) and tiny['temperature'] == (2., 4.) and 'optimizer' in tiny


def test_the_papers_student_can_be_built():
    paper, padded = (build_model('hdl-student', 3, width=0.25, head_padding=p).eval() for p in (0, 1))
    x = torch.randn(2, paper.blocks[2][-1][0][0].out_channels, 7, 7)
    assert paper.blocks[3](x).shape[-1] == 3 and padded.blocks[3](x).shape[-1] == 4


def test_the_command_prints_every_source(capsys):
    text = presets_command('oim', PRW)
    assert capsys.readouterr().out.strip() == text.strip()
    assert '| `steps` | `50000` | Xiao 2017, section 4 |' in text and '| `queue` | `500` |' in text and '`oim_scale` | `10.0` | Xiao 2017' in text
    assert '| `lr` | `0.02` | given |' in presets_command('oim', PRW, set=['lr=0.02'])


def test_settings_of_a_part_need_a_part():
    "A name in front of the point is a stage or a part of the network; anything else is said at once, with what there is."
    assert make_recipe('hdl-teacher', 'synth:tiny', 'tiny', **{'rpn.lr': .1}).train.parts == {'rpn': {'lr': .1}}
    for wrong, says in (({"rkd.angle": 2.}, 'rkd is a term, whose settings follow its weight: terms="rkd=1,angle=2.0"'), ({'idloss.margin': .3}, "no setting 'idloss.margin': did you mean id_loss.margin")):
        with pytest.raises(ValueError, match=re.escape(says)): make_recipe('hdl-student-fast', 'synth:tiny', 'tiny', **wrong)
    with pytest.raises(ValueError, match="'typo' is no stage and no part of hdl-teacher; there are .*rpn"):
        make_recipe('hdl-teacher', 'synth:tiny', 'tiny', **{'typo.lr': .1})
    with pytest.raises(ValueError, match="'typo' is no stage.*detector"):
        make_recipe('clsa', 'prw:PATH', **{'typo.lr': .1})
