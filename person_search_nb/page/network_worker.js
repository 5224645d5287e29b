// The worker in which one network lives: remote_network.js asks, this answers. The maps that
// regions are cut out of are large: they stay here, under numbers, until they are to be forgotten.

import { Network } from './network.js';
import { start } from './runtime.js';

const features = new Map();  // number -> map
let network, number = 0, turn = Promise.resolve();

const ANSWERS = {
  async open(files, kit) {
    const { ort, options } = await start(kit);
    network = await Network.open(ort, files, options);
    return network.about;
  },
  async look(image, gains) {
    const { maps } = await network.look(image, gains);
    return { maps };
  },
  async search(image, gains) {
    const found = await network.search(image, gains);
    features.set(++number, found.features);
    return { ...found, features: number };
  },
  regions(of, boxes, gain) { return network.regions(features.get(of), boxes, gain); },
  forget(of) { features.delete(of); },
};

// of all arrays of numbers in an answer: they move to the page instead of being copied
function buffers(value) {
  if (ArrayBuffer.isView(value)) return [value.buffer];
  return value instanceof Object ? Object.values(value).flatMap(buffers) : [];
}

async function reply({ id, method, given }) {
  try {
    const answer = await ANSWERS[method](...given);
    postMessage({ id, answer }, [...new Set(buffers(answer))]);
  } catch (error) { postMessage({ id, error: String(error?.message ?? error) }); }
}

// one after another: a session of ONNX Runtime does one thing at a time
addEventListener('message', ({ data }) => { turn = turn.then(() => reply(data)); });
