// ONNX Runtime, which computes the networks: on the graphics card where the browser offers one by
// WebGPU, else in WebAssembly on one core.

const BUILDS = {
  wasm: { title: 'WebAssembly', script: 'ort.wasm.min.mjs', binary: 'ort-wasm-simd-threaded',
    providers: ['wasm'] },
  webgpu: { title: 'WebGPU', script: 'ort.webgpu.min.mjs',
    binary: 'ort-wasm-simd-threaded.asyncify', providers: ['webgpu', 'wasm'] },
};

// 'webgpu' where there is a card; what only imitates one is slower than WebAssembly
async function best(wanted) {
  try {
    const adapter = await navigator.gpu?.requestAdapter(), info = adapter?.info ?? {};
    const imitated = info.isFallbackAdapter || /swiftshader|llvmpipe/i.test(info.architecture);
    return adapter && (wanted === 'webgpu' || !imitated) ? 'webgpu' : 'wasm';
  } catch { return 'wasm'; }
}

// What workers start a runtime from. Its files are read here, once for all of them.
async function kitOf(name, read) {
  const { script, binary, providers } = BUILDS[name];
  const module = async file => URL.createObjectURL(
    new Blob([await read(`vendor/${file}`)], { type: 'text/javascript' }));
  return { script: await module(script), glue: await module(`${binary}.mjs`),
    binary: (await read(`vendor/${binary}.wasm.gz`)).buffer, providers };
}

// in a worker; kit: of `openWith`
export async function start({ script, glue, binary, providers }) {
  const ort = await import(script);
  Object.assign(ort.env.wasm, { numThreads: 1, wasmPaths: { mjs: glue }, wasmBinary: binary });
  ort.env.logLevel = 'error';  // that shapes are computed on the processor is no news
  return { ort, options: { executionProviders: providers } };
}

// wanted: 'wasm', 'webgpu' (if there is a card, even an imitated one), else the best there is;
// read: as in `filesOf`; opens: a function that opens all networks, each with `start` of the kit
// that it gets. A card on which that fails is left.
export async function openWith(wanted, read, opens) {
  const name = wanted === 'wasm' ? wanted : await best(wanted);
  try {
    await opens(await kitOf(name, read));
    return BUILDS[name].title;
  } catch (error) {
    if (name === 'wasm') throw error;
    return openWith('wasm', read, opens);
  }
}
