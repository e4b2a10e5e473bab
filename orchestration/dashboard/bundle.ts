// Writes static/: index.html and its assets, whose names carry a hash of what they hold, so that a browser
// may keep them for ever. Paths are absolute because the same page is served at every depth.
import { createHash } from "node:crypto";
import { gzipSync } from "node:zlib";

const HERE = new URL(".", import.meta.url);
const OUT = new URL("static/", HERE);
const LIMIT_BYTES = 200_000; // gzipped, all assets

async function javascript(): Promise<Uint8Array> {
  const command = new Deno.Command(Deno.execPath(), {
    args: ["bundle", "--quiet", "--minify", "--platform", "browser", "src/main.tsx"],
    cwd: HERE,
    stdout: "piped",
    stderr: "piped",
  });
  const done = await command.output();
  if (!done.success) throw new Error(`deno bundle failed:\n${new TextDecoder().decode(done.stderr)}`);
  return done.stdout;
}

/** Every stylesheet below src/, those of the shell first because the others refine them. */
async function stylesheets(): Promise<Uint8Array> {
  const found: string[] = [];
  async function walk(folder: URL): Promise<void> {
    for await (const entry of Deno.readDir(folder)) {
      if (entry.isDirectory) await walk(new URL(`${entry.name}/`, folder));
      else if (entry.name.endsWith(".css")) found.push(new URL(entry.name, folder).pathname);
    }
  }
  await walk(new URL("src/", HERE));
  found.sort((a, b) => a.split("/").length - b.split("/").length || a.localeCompare(b));
  const texts = await Promise.all(found.map((path) => Deno.readTextFile(path)));
  return new TextEncoder().encode(texts.join("\n"));
}

function named(name: string, content: Uint8Array): string {
  const hash = createHash("sha256").update(content).digest("hex").slice(0, 10);
  return name.replace(".", `-${hash}.`);
}

const assets: [string, Uint8Array][] = [
  ["app.js", await javascript()],
  ["app.css", await stylesheets()],
  ["icon.svg", await Deno.readFile(new URL("icon.svg", HERE))],
];
let page = await Deno.readTextFile(new URL("index.html", HERE));
let total = gzipSync(page).length;
await Deno.remove(OUT, { recursive: true }).catch(() => {});
await Deno.mkdir(new URL("assets/", OUT), { recursive: true });
for (const [name, content] of assets) {
  const final = named(name, content);
  if (!page.includes(`/assets/${name}`)) throw new Error(`index.html does not mention /assets/${name}`);
  page = page.replaceAll(`/assets/${name}`, `/assets/${final}`);
  await Deno.writeFile(new URL(`assets/${final}`, OUT), content);
  const zipped = gzipSync(content).length;
  total += zipped;
  console.log(`${final.padEnd(24)} ${content.length} bytes, ${zipped} gzipped`);
}
await Deno.writeTextFile(new URL("index.html", OUT), page);
if (total > LIMIT_BYTES) {
  await Deno.remove(OUT, { recursive: true });
  throw new Error(`the dashboard has ${total} bytes gzipped; at most ${LIMIT_BYTES} are allowed`);
}
