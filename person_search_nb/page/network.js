// A network of two parts, as web_parts.py writes it, put together as deployable.TwoParts does.

import { clip, isLarge, nms, take } from './boxes.js';
import { roiAlign } from './roi_align.js';

const ONE = { data: new Float32Array([1]), dims: [1, 1, 1, 1] };
export const AS_LEARNED = [ONE, ONE, ONE, ONE];
export const OFF = AS_LEARNED.map(g => ({ ...g, data: new Float32Array([0]) }));

export class Network {
  // ort: onnxruntime; scene, head: its sessions; about: what NAME.json says
  constructor(ort, scene, head, about) {
    Object.assign(this, { ort, scene, head, about });
  }

  // files: of `filesOf`
  static async open(ort, files, options = {}) {
    const session = part => ort.InferenceSession.create(files[part], options);
    const about = JSON.parse(new TextDecoder().decode(files.about));
    return new Network(ort, await session('scene'), await session('head'), about);
  }

  tensor({ data, dims }) { return new this.ort.Tensor('float32', data, dims); }

  // image: { data: 3 x h x w numbers 0-1, dims: [1, 3, h, w] }; gains: four, one for each level
  async look(image, gains = AS_LEARNED) {
    const [, , h, w] = image.dims, least = 2 * this.about.stride;
    if (Math.min(h, w) <= least)
      throw new Error(`a picture of ${w} x ${h} px is too small: both sides need over ${least} px`);
    const given = { image: this.tensor(image) };
    gains.slice(0, 3).forEach((g, j) => { given[`gain${j}`] = this.tensor(g); });
    const { features, boxes, scores, ...maps } = await this.scene.run(given);
    return { features, boxes: boxes.data, scores: scores.data, maps: levels(maps, [0, 1, 2]) };
  }

  // Who is in these boxes: embeddings (R rows of `dim` numbers), scores, refined boxes, maps.
  async regions(features, boxes, gain = ONE) {
    const none = new Float32Array(0), { roi_size: size, stride, shift } = this.about;
    if (!boxes.length) return { embeddings: none, scores: none, boxes: none, maps: [] };
    const pooled = roiAlign(features, boxes.map(v => v + shift), size, 1 / stride);
    const given = { pooled, boxes: { data: boxes, dims: [boxes.length / 4, 4] }, gain3: gain };
    for (const k of Object.keys(given)) given[k] = this.tensor(given[k]);
    const { embeddings, scores, refined, ...maps } = await this.head.run(given);
    return { embeddings: embeddings.data, scores: scores.data, boxes: refined.data,
      maps: levels(maps, [3]) };
  }

  // The people in a picture, best first; `regions` says who they are.
  async search(image, gains = AS_LEARNED) {
    const a = this.about, [, , height, width] = image.dims;
    const seen = await this.look(image, gains);
    const real = [...seen.scores.keys()].filter(i => seen.scores[i] >= 0);
    const all = take(seen.boxes, real), likely = Float32Array.from(real, i => seen.scores[i]);
    const proposals = take(all, nms(all, likely, a.proposal_nms, a.proposals));
    const judged = await this.regions(seen.features, proposals, gains[3]);
    const moved = clip(judged.boxes, height, width);
    const sure = [...judged.scores.keys()]
      .filter(i => judged.scores[i] >= a.score_threshold && isLarge(moved, i, 1));
    const boxes = take(moved, sure), scores = Float32Array.from(sure, i => judged.scores[i]);
    const kept = nms(boxes, scores, a.nms_threshold, a.detections);
    return { boxes: take(boxes, kept), scores: Float32Array.from(kept, i => scores[i]),
      maps: seen.maps, features: seen.features };
  }
}

// Maps by level: [{ x, mean_a, a }], each { data, dims }.
function levels(maps, numbers) {
  const plain = ({ data, dims }) => ({ data, dims });  // a tensor cannot leave a worker
  return numbers.map(j => ({ x: plain(maps[`x${j}`]), mean_a: plain(maps[`mean_a${j}`]),
    a: plain(maps[`a${j}`]) }));
}

// read: a function of a file's name that gives its bytes
export async function filesOf(name, read) {
  const [about, scene, head] = await Promise.all(
    [`${name}.json`, `${name}.scene.onnx`, `${name}.head.onnx`].map(read));
  return { about, scene, head };
}
