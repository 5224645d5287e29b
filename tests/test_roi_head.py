"""The RoI head alone, the parts of a network, and what is registered."""
import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from person_search_nb.anchors import pedestrian_anchors
from person_search_nb.attention import list_attention, register_attention
from person_search_nb.backbones import build_backbone, list_backbones, register_backbone, resnet_backbone
from person_search_nb.oim import ID_LOSSES, list_id_losses, register_id_loss, SoftmaxLoss
from person_search_nb.person_search import PersonSearchNet
from person_search_nb.roi_align import roi_align
from person_search_nb.roi_head import build_head, list_roi_ops, register_roi_op, RoIPooler, RoISampler
from person_search_nb.systems import build_model, network_parts

HEIGHTS = [60., 90., 120.]
TARGET = dict(boxes=torch.tensor([[100., 40, 140, 140], [20, 30, 60, 130]]), person_id=torch.tensor([2, 0]))


def parts(**kw):
    torch.manual_seed(0)
    return network_parts(resnet_backbone(50, width=0.125), 4, pedestrian_anchors(HEIGHTS), **dict(rpn_channels=16, proposals=(40, 20)) | kw)


def test_own_parts_by_name_work_in_a_system(registries):
    @register_attention('twice')
    class Twice(nn.Module):
        def __init__(self, channels): super().__init__()
        def forward(self, x): return 2 * x, None

    @register_id_loss('unit-softmax')
    class UnitSoftmax(SoftmaxLoss):
        unit_length = True
        def forward(self, features, person_id):
            torch.testing.assert_close(features.norm(dim=1), torch.ones(len(features)))
            return super().forward(features, person_id)

    @register_roi_op('corner', cell=0.)
    def corner(features, boxes, size, scale): return roi_align(features, boxes, size, scale)

    register_backbone('mine')(lambda width=1., weights=None: resnet_backbone(18, width))
    assert list_attention()[-1] == 'twice' and list_id_losses()[-1] == 'unit-softmax' and list_roi_ops()[-1] == 'corner' and list_backbones()[-1] == 'mine'
    net = build_model('oim', 4, HEIGHTS, width=0.125, trunk='mine', attention='twice', id_loss='unit-softmax', roi_op='corner')
    assert net.unit_length and not net.with_background and net.roi_head.pooler.shift == -.5 and type(net.attention[2]) is Twice
    assert net([torch.rand(3, 160, 200)], [TARGET])['id'].isfinite()


def test_background_is_a_class_where_the_loss_says_so(registries):
    assert {n for n in list_id_losses() if getattr(ID_LOSSES[n](8, 4), 'background', False)} == {'rss', 'softmax+background'}
    assert {n for n in list_id_losses() if getattr(ID_LOSSES[n](8, 4), 'unit_length', False)} == {'oim'}
    few, all_ = (parts(id_loss=n, rss_classes=2)['id_loss'].k for n in ('rss', 'softmax+background'))
    assert few == 2 and all_ > 100  # the setting is the sampling loss's alone


def test_given_parts_stay_as_they_are():
    backbone, anchors = build_backbone('vgg16', width=0.125), pedestrian_anchors(HEIGHTS)
    names, blocks = list(backbone.state_dict()), len(backbone.blocks)
    net = PersonSearchNet(**network_parts(backbone, 4, anchors, rpn_channels=16, refine=False, id_loss='none'))
    assert anchors.centre == 0 and net.rpn.anchors.centre == 7.5
    assert list(backbone.state_dict()) == names and len(backbone.blocks) == blocks
    assert isinstance(net.blocks[3], nn.Identity) and net.blocks[0] is backbone.blocks[0]


def test_layers_are_named_as_in_files_and_the_head_has_them():
    net = PersonSearchNet(**parts(dim=32)).eval()
    first = [k.split('.')[0] for k in net.state_dict()]
    assert list(dict.fromkeys(first)) == ['stem', 'blocks', 'attention', 'rpn', 'pooled_norm', 'project', 'embedding_norm', 'region_norm', 'score', 'deltas', 'id_loss']
    own = {id(p) for p in net.parameters()}
    assert all(id(p) in own for p in net.roi_head.parameters())
    twin = copy.deepcopy(net)
    nn.init.constant_(twin.score.bias, 5.)
    other = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(net))  # replaces layers within the network
    assert isinstance(other.roi_head.pooled_norm, nn.SyncBatchNorm)
    features = torch.rand(1, 128, 10, 13)
    with torch.no_grad(): a, b = (m.head(features, [TARGET['boxes']]) for m in (net, twin))
    torch.testing.assert_close(b.score - a.score, torch.full((2,), 5.))
    assert torch.equal(a.embedding, b.embedding)


def test_a_head_trains_alone():
    torch.manual_seed(0)
    head = build_head(resnet_backbone(18, width=0.125).head, (32, 64), dim=16)
    head.start_outputs()
    features = torch.randn(1, 32, 10, 13)
    proposals = torch.cat([TARGET['boxes'] + 3, torch.tensor([[150., 10, 190, 90], [60, 20, 95, 100], [0, 0, 30, 60]])])
    opt, losses = torch.optim.SGD(head.parameters(), lr=.05, momentum=.9), []
    for _ in range(30):
        rois = RoISampler()([proposals], [TARGET])
        both = head.losses(head(features, rois.boxes, rois.positive), rois)
        opt.zero_grad(); sum(both.values()).backward(); opt.step()
        losses.append(both['head_cls'].item())
    assert losses[-1] < losses[0] / 3
    one = head.eval()(features, [TARGET['boxes']])
    pooled = head.pooler(features, [TARGET['boxes']])
    x = head.block(head.pooled_norm(pooled)).mean((2, 3))
    torch.testing.assert_close(one.embedding, head.embedding_norm(F.linear(x, head.project.weight, head.project.bias)))


@pytest.mark.parametrize('op, centre, shift', [('align', 0., 7.5), ('align', 7.5, 0.), ('pool', 0., -.5), ('pool', 7.5, -8.), ('pool', 14., -14.5), ('crop', 0., -.5), ('crop', 7.5, -8.)])
def test_boxes_move_to_where_cells_are(op, centre, shift):
    assert RoIPooler(op, centre=centre).shift == shift


@pytest.mark.parametrize('centre', (0., 7.5, 14.))
def test_pooling_finds_cells_at_every_edge(centre):
    h, w = 96, 160
    edges = torch.tensor([[0., 0, w, h], [0, 0, 30, 70], [w - 30., h - 70, w, h], [0, 40, 9, 60], [-20., -20, 30, 30], [w - 4., 10, w + 40, 30]])
    for size in (3, 7, 14): assert (RoIPooler('pool', size, centre=centre)(torch.ones(1, 2, h // 16, w // 16), [edges]) == 1).all()
    one_cell = torch.arange(60.).view(1, 1, 6, 10)  # the cell that looks at a box, not its neighbour
    box = torch.tensor([[16 * 4 + centre - 3, 16 * 2 + centre - 3, 16 * 4 + centre + 4, 16 * 2 + centre + 4]])
    assert (RoIPooler('pool', 2, centre=centre)(one_cell, [box]) == 24).all()


@pytest.mark.parametrize('wrong, why', [(dict(refine=False), "id_loss='none'"), (dict(one_norm=True, dim=8), 'one BatchNorm'), (dict(one_norm=True, norms=False), 'one BatchNorm'), (dict(roi_op='mean'), 'choose one of align')])
def test_contradictions_are_refused(wrong, why):
    with pytest.raises(ValueError, match=why): parts(**wrong)


def test_a_network_that_only_detects():
    net = PersonSearchNet(**parts(id_loss='none'))
    assert net.id_loss is None and not net.head_identifies and not net.unit_length
    assert set(net([torch.rand(3, 160, 200)], [TARGET])) == {'rpn_cls', 'rpn_box', 'head_cls', 'head_box'}
    with pytest.raises(ValueError, match='matching'): PersonSearchNet(**parts() | dict(matching='manhattan'))
