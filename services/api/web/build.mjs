// Builds what the server hands to browsers: `node build.mjs [folder]`, the folder is inlay_api/static unless named.
// The same sources and the same lock file give the same bytes, which a test checks.
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const out = process.argv[2] ?? join(here, "../inlay_api/static");
const entries = ["reading", "theme", "viewer", "worklist"];

const result = await build({
  absWorkingDir: here,
  entryPoints: entries.map((name) => `src/${name}.js`),
  bundle: true,
  // The viewer is fetched when there is an image to show: see src/reading.js.
  external: ["./viewer.js"],
  format: "esm",
  target: "es2022",
  charset: "utf8",
  minify: true,
  legalComments: "none",
  metafile: true,
  outdir: out,
});

function packageOf(path) {
  return /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1];
}

function licenceOf(name) {
  const folder = join(here, "node_modules", name);
  const about = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const file = ["LICENSE", "LICENSE.md", "LICENSE.txt", "license"].find((one) => {
    try {
      return readFileSync(join(folder, one));
    } catch {
      return false;
    }
  });
  if (!file) throw new Error(`${name} has no licence file`);
  const text = readFileSync(join(folder, file), "utf8").replaceAll("\r\n", "\n").trim();
  return `${"=".repeat(100)}\n${name} ${about.version} (${about.license})\n\n${text}\n`;
}

const names = new Set();
const digests = [];
for (const [path, output] of Object.entries(result.metafile.outputs)) {
  Object.keys(output.inputs).map(packageOf).filter(Boolean).forEach((name) => names.add(name));
  const file = path.split("/").at(-1);
  digests.push(`${createHash("sha256").update(readFileSync(join(out, file))).digest("hex")}  ${file}`);
}
const head = `What the scripts in this folder were built from besides services/api/web/src, with their licences.
Written by \`make web\`; do not edit. SHA-256 of the scripts:

${digests.sort((a, b) => (a.slice(66) < b.slice(66) ? -1 : 1)).join("\n")}
`;
writeFileSync(join(out, "THIRD-PARTY.txt"), [head, ...[...names].sort().map(licenceOf)].join("\n"));
