"""Nine frames of a film that no network and no setting was tried on, as a folder for real.py: OpenCV's `vtest.avi` (PETS 2009, S2.L1, view 1),
which comes with the source distribution of opencv-python (opencv/samples/data).

    python benchmarks/film_frames.py vtest.avi runs/film
    python benchmarks/real.py runs/film --protocol all --size 576x768 --models shipped:hdl-teacher shipped:hdl-teacher-rich

Boxes were drawn by eye on every 90th frame, before any network had looked at them. Left out are two at an edge of whom little is seen (130, 220)
and two behind a car (670, 760). Six people who
can be told apart by their clothes have an identity (0 red and blue jacket, 1 light hair and black coat, 2 red jacket, 3 little hair and dark jacket, 4 black
jacket and jeans, 5 black, with a sheet of paper); of those in black whom the eye could not tell apart with certainty none has.
"""
import argparse, json
from pathlib import Path
import av

# frame: (x1, y1, x2, y2 px, identity; -1 = none)
PEOPLE = {
    40: [(377, 178, 402, 258, 4), (398, 184, 427, 262, -1), (439, 188, 458, 271, -1), (567, 235, 604, 332, 0), (602, 232, 633, 324, 1), (736, 282, 768, 399, -1)],
    130: [(134, 77, 148, 112, -1), (593, 120, 613, 183, 0), (617, 126, 639, 185, 1), (684, 120, 703, 190, 3), (383, 184, 406, 266, 4), (421, 181, 440, 260, -1),
          (600, 204, 629, 284, -1), (591, 226, 639, 307, -1)],
    220: [(98, 183, 127, 250, -1), (365, 161, 400, 239, 3), (658, 106, 682, 166, 0), (682, 112, 700, 167, 1), (584, 295, 623, 410, 4), (744, 238, 768, 328, -1)],
    310: [(188, 167, 213, 231, -1), (247, 163, 273, 241, 3), (268, 201, 299, 285, -1), (356, 153, 394, 221, -1), (589, 171, 618, 251, 0), (620, 174, 643, 249, 1)],
    400: [(274, 201, 301, 285, 4), (590, 141, 617, 204, -1), (687, 301, 744, 411, 5)],
    490: [(360, 194, 384, 274, 2), (517, 257, 549, 360, -1), (572, 250, 605, 361, 3), (616, 264, 649, 360, -1)],
    580: [(285, 146, 319, 218, 3), (581, 172, 622, 250, 5), (675, 232, 715, 328, 4), (641, 305, 668, 412, -1), (233, 337, 278, 469, 0), (189, 429, 256, 576, 1)],
    670: [(219, 155, 246, 230, 3), (239, 157, 256, 223, -1), (327, 151, 357, 216, 2), (469, 186, 496, 262, -1), (570, 164, 602, 238, 0), (566, 265, 597, 370, -1),
          (226, 344, 284, 469, 1)],
    760: [(229, 194, 256, 270, 1), (241, 235, 284, 327, 0), (311, 178, 345, 254, 5), (461, 183, 489, 246, -1), (455, 224, 491, 315, 4), (653, 205, 681, 304, 3),
          (683, 122, 706, 183, 2)],
}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('film', type=Path, help='vtest.avi')
    p.add_argument('out', type=Path, help='folder for the frames')
    a = p.parse_args()
    (a.out / 'frames').mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    with av.open(a.film) as film:
        for i, frame in enumerate(film.decode(video=0)):
            if i not in PEOPLE: continue
            frame.to_image().save(a.out / 'frames' / f'{i:03d}.png')
            images.append(dict(id=i, file_name=f'frames/{i:03d}.png', height=frame.height, width=frame.width))
            for x1, y1, x2, y2, who in PEOPLE[i]:
                annotations.append(dict(id=len(annotations), image_id=i, category_id=1, bbox=[x1, y1, x2 - x1, y2 - y1], person_id=who))
    (a.out / 'annotations.json').write_text(json.dumps(dict(images=images, annotations=annotations, categories=[dict(id=1, name='person')])))
    print(f'{len(images)} frames, {len(annotations)} people in {a.out}')


if __name__ == '__main__': main()
