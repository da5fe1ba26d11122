// Runs the program under Node.js: `node run.mjs FILE [NUMBER]`, with a file of WebAssembly, or a module that wasm-bindgen has made.
import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

const file = process.argv[2];
if (file.endsWith(".wasm")) {
    const module = await WebAssembly.compile(await readFile(file));
    if (WebAssembly.Module.imports(module).length > 0) {
        const { WASI } = await import("node:wasi");
        const wasi = new WASI({ version: "preview1", args: [file] });
        process.exit(wasi.start(await WebAssembly.instantiate(module, wasi.getImportObject())));
    }
    const { exports } = await WebAssembly.instantiate(module);
    // The program cannot print: its status is the number of checks.
    const passed = exports.main(0, 0);
    const expected = Number(process.argv[3]);
    console.log(`test result: ${passed === expected ? "ok" : "FAILED"}. ${passed} passed`);
    if (passed !== expected) {
        console.log(`expected are ${expected}`);
        process.exitCode = 1;
    }
} else {
    // The process ends with status 0 when nothing is left to run, also if a check waits for what does not happen.
    const log = console.log;
    process.exitCode = 1;
    console.log = (line) => {
        log(line);
        if (line.startsWith("test result: ok")) process.exitCode = 0;
    };
    await import(pathToFileURL(file).href);
}
