"Real frames, when they are there: the whole path on sixteen of PRW. They prove the path, not the method."
import pytest, torch

from person_search_nb.boxes import box_iou
from person_search_nb.anchors import fit_heights
from person_search_nb.datasets import open_dataset
from person_search_nb.systems import imprint
from person_search_nb.model_files import load_trunk, shipped_trunk
from person_search_nb.evaluation import evaluate
from person_search_nb.settings import TrainConfig
from person_search_nb.training import train
from person_search_nb.models import build_model, load_model


@pytest.fixture
def spec(shared):
    folder = shared/'real'/'prw16'
    if not folder.is_dir(): pytest.skip('the sixteen PRW frames are not here')
    return f'coco:{folder}?train=c1*&gallery=c3*&query=c1*'


@pytest.fixture
def fitted(spec):
    "A small student fitted to the frames of camera 1."
    data = open_dataset(spec, 'train', size=(450, 800), cache=True, progress=False)
    torch.manual_seed(0)
    model = build_model('hdl-student-fast', data.num_ids, heights=fit_heights(data.heights()), width=0.625, rpn_channels=64, rois_per_image=16, proposals=(100, 50))
    imprint(load_trunk(model, shipped_trunk('hdl-student-fast-taught')), data, progress=False)
    history = train(model, data, TrainConfig(epochs=90, batch_size=4, optimizer='adamw', lr=1e-3, weight_decay=0.05, warmup=20, schedule='cosine', weights={'rpn_box': 5}), progress=False)
    assert history[-1]['loss'] < history[0]['loss']
    return model, data


@pytest.mark.slow
def test_detector_finds_the_people_it_was_fitted_on(fitted, spec):
    model, data = fitted
    found = total = 0
    with torch.inference_mode():
        for i in range(len(data)):
            image, target = data[i]
            boxes = model([image])[0]['boxes']
            total += len(target['boxes'])
            if len(boxes): found += int((box_iou(target['boxes'], boxes).max(1).values >= 0.5).sum())
    print(f'{found} of {total} boxes found')
    assert found >= 0.9 * total
    scores = evaluate(model, *(open_dataset(spec, s, size=(450, 800), progress=False) for s in ('gallery', 'query')))
    print({k: round(float(v), 3) for k, v in scores.items() if k in ('mAP', 'top1', 'top5', 'top10', 'det_ap', 'det_recall')})
    assert 0 < scores['mAP'] <= 1 and scores['det_recall'] > 0   # another camera, never seen: the path works


def test_drawings_in_detail_teach_to_find_people_in_photographs(shared):
    "The teacher that went on with rich scenes, against itself before; neither has seen a photograph."
    folder = shared/'real'/'prw16'
    if not folder.is_dir(): pytest.skip('the sixteen PRW frames are not here')
    gallery, queries = (open_dataset(f'coco:{folder}?train=*&gallery=*&query=*&protocol=cross-camera', s, size=(450, 800), progress=False) for s in ('gallery', 'query'))
    before, after = (evaluate(load_model(f'shipped:{name}'), gallery, queries, progress=False) for name in ('hdl-teacher', 'hdl-teacher-rich'))
    print({k: (round(100 * before[k], 1), round(100 * after[k], 1)) for k in ('det_ap', 'det_recall', 'mAP')})
    assert before['det_ap'] < .3 and after['det_ap'] > .55 and after['mAP'] > before['mAP'] + .3
