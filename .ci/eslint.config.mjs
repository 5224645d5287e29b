// Rules for the JavaScript of the package and its tests: `.ci/lint-js`.
const browser = ['Blob', 'DataView', 'DecompressionStream', 'ImageBitmap', 'OffscreenCanvas', 'Response', 'TextDecoder', 'URL', 'URLSearchParams', 'Worker', 'addEventListener',
  'createImageBitmap', 'document', 'fetch', 'getComputedStyle', 'history', 'innerHeight', 'location', 'matchMedia', 'navigator', 'performance', 'postMessage', 'setTimeout', 'clearTimeout'];

export default [{
  languageOptions: { ecmaVersion: 2022, sourceType: 'module', globals: Object.fromEntries(browser.map(name => [name, 'readonly'])) },
  linterOptions: { reportUnusedDisableDirectives: 'error' },
  rules: Object.fromEntries([
    // faults
    'array-callback-return', 'constructor-super', 'for-direction', 'getter-return', 'no-async-promise-executor', 'no-class-assign', 'no-compare-neg-zero',
    'no-cond-assign', 'no-const-assign', 'no-constant-condition', 'no-dupe-args', 'no-dupe-class-members', 'no-dupe-else-if', 'no-dupe-keys', 'no-duplicate-case',
    'no-duplicate-imports', 'no-empty-pattern', 'no-fallthrough', 'no-func-assign', 'no-import-assign', 'no-inner-declarations', 'no-loss-of-precision',
    'no-promise-executor-return', 'no-redeclare', 'no-self-assign', 'no-self-compare', 'no-shadow', 'no-shadow-restricted-names', 'no-sparse-arrays', 'no-this-before-super',
    'no-undef', 'no-unreachable', 'no-unreachable-loop', 'no-unsafe-finally', 'no-unsafe-negation', 'no-unsafe-optional-chaining', 'no-unused-vars', 'no-useless-backreference', 'use-isnan', 'valid-typeof',
    // habits
    'eqeqeq', 'no-eval', 'no-implied-eval', 'no-new-func', 'no-script-url', 'no-throw-literal', 'no-unneeded-ternary', 'no-useless-concat', 'no-useless-rename', 'no-useless-return',
    'no-var', 'object-shorthand', 'prefer-arrow-callback', 'prefer-const', 'prefer-template',
  ].map(rule => [rule, 'error']).concat([['no-use-before-define', ['error', { functions: false }]], ['max-lines-per-function', ['error', { max: 60 }]], ['complexity', ['error', 14]], ['max-len', ['error', { code: 100 }]]])),
}];
