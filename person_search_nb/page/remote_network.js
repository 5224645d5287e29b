// A network in a worker of its own (network_worker.js): networks run side by side, and the page
// never stands still. `search` gives a number as `features`, which `regions` takes.

const MISSING = 'A file of this page is missing: the console of the browser names it.';

export class RemoteNetwork {
  constructor(name) {
    const place = new URL('network_worker.js', import.meta.url);
    this.worker = new Worker(place, { type: 'module', name });
    this.waiting = new Map();  // number of a question -> what to do with its answer
    Object.assign(this, { name, asked: 0 });
    this.worker.onmessage = ({ data }) => this.answered(data);
    this.worker.onerror = ({ message }) => {
      for (const id of [...this.waiting.keys()]) this.answered({ id, error: message || MISSING });
    };
  }

  answered({ id, answer, error }) {
    const { resolve, reject } = this.waiting.get(id);
    this.waiting.delete(id);
    if (error === undefined) resolve(answer);
    else reject(new Error(error));
  }

  ask(method, ...given) {
    return new Promise((resolve, reject) => {
      this.waiting.set(++this.asked, { resolve, reject });
      this.worker.postMessage({ id: this.asked, method, given });
    });
  }

  // files: of `filesOf`; kit: of `openWith`
  async open(files, kit) { this.about = await this.ask('open', files, kit); }

  // image, gains and answers: as in network.js; a canvas stays here
  look({ data, dims }, gains) { return this.ask('look', { data, dims }, gains); }
  search({ data, dims }, gains) { return this.ask('search', { data, dims }, gains); }
  regions(features, boxes, gain) { return this.ask('regions', features, boxes, gain); }
  forget(features) { return this.ask('forget', features); }
  close() { this.worker.terminate(); }
}

// files: name -> of `filesOf`; out: name -> network. If one cannot be opened, none stays open.
export async function openAll(files, kit) {
  const names = Object.keys(files);
  const networks = Object.fromEntries(names.map(name => [name, new RemoteNetwork(name)]));
  try {
    await Promise.all(names.map(name => networks[name].open(files[name], kit)));
  } catch (error) {
    for (const name of names) networks[name].close();
    throw error;
  }
  return networks;
}
