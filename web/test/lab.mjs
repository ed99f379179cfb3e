// Drives the lab in headless Chromium: what scripts/lab_test.sh runs. Arguments: the folder web/dist, the program radiograd, a folder
// for pictures and files. Environment: CHROMIUM (/usr/bin/chromium), LAB_CASES (words: which cases), RADIOGRAD_DATA (real images).

import { execFileSync } from "node:child_process";
import { createServer } from "node:http";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { gzipSync } from "node:zlib";

import { chromium } from "playwright-core";

const [dist, program, out] = process.argv.slice(2).map((p) => path.resolve(p));
mkdirSync(out, { recursive: true });
const only = process.env.LAB_CASES?.split(" ");
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".wasm": "application/wasm", ".svg": "image/svg+xml" };

const server = createServer((request, response) => {
  const name = new URL(request.url, "http://x").pathname;
  const file = path.join(dist, name === "/" ? "index.html" : name);
  if (!file.startsWith(dist) || !existsSync(file)) return response.writeHead(404).end();
  response.writeHead(200, { "content-type": TYPES[path.extname(file)] ?? "application/octet-stream" }).end(readFileSync(file));
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const home = `http://127.0.0.1:${server.address().port}/`;

const flags = ["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const webgpu = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"];
const launch = (gpu) =>
  chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", headless: true, args: [...flags, ...(gpu ? webgpu : ["--disable-features=WebGPU"])] });

let browser = await launch(true);
const faults = [];
const results = [];

const check = (ok, what) => {
  results.push(`${ok ? "ok  " : "FAIL"} ${what}`);
  console.log(results.at(-1));
  if (!ok) faults.push(what);
};

/** A page of the lab; what its console says and what it asks of other hosts counts against it. */
async function open(hash, { width = 1440, height = 1000, dark = false } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: dark ? "dark" : "light", acceptDownloads: true });
  const page = await context.newPage();
  page.said = [];
  page.on("console", (m) => ["error", "warning"].includes(m.type()) && page.said.push(`${m.type()}: ${m.text()}`));
  page.on("pageerror", (e) => page.said.push(`error: ${e.message}`));
  page.on("request", (r) => r.url().startsWith(home) || r.url().startsWith("blob:") || page.said.push(`error: asks for ${r.url()}`));
  await page.addInitScript(() => {
    globalThis.longest = 0;
    new PerformanceObserver((list) => {
      for (const e of list.getEntries()) globalThis.longest = Math.max(globalThis.longest, e.duration);
    }).observe({ type: "longtask", buffered: true });
  });
  await page.goto(home + hash);
  return page;
}

/** While `play` runs: the longest task of the page's thread in milliseconds, by the clock, and by the time that the thread itself computed. */
async function longestTask(page, play) {
  await browser.startTracing(page, { categories: ["toplevel"] });
  await play();
  const { traceEvents } = JSON.parse((await browser.stopTracing()).toString());
  const threads = new Set(traceEvents.filter((e) => e.name === "thread_name" && e.args.name === "CrRendererMain").map((e) => `${e.pid} ${e.tid}`));
  const tasks = traceEvents.filter((e) => e.ph === "X" && threads.has(`${e.pid} ${e.tid}`));
  const most = (of) => Math.round(Math.max(0, ...tasks.map((e) => of(e) ?? 0)) / 1000);
  return { clock: await page.evaluate(() => Math.round(globalThis.longest)), computing: most((e) => e.tdur) };
}

const checkTasks = ({ clock, computing }, what) =>
  check(clock < 100, `${what}: longest task of the page's thread ${clock} ms by the clock, below 100 (it computes for ${computing} ms)`);

const ready = (page) => page.waitForFunction(() => !document.getElementById("play").disabled, null, { timeout: 60000 });
const epochs = (page) =>
  page.$$eval("#epochs tbody tr", (rows) => rows.map((r) => [...r.cells].map((c) => c.textContent)));
const done = async (page, rows, timeout = 900000) => {
  await page.waitForFunction((n) => document.querySelectorAll("#epochs tbody tr").length >= n, rows, { timeout });
  return epochs(page);
};
const clean = (page, what) => {
  const errors = page.said.filter((s) => s.startsWith("error"));
  check(errors.length === 0, `${what}: no errors in the console${errors.length ? `: ${errors.slice(0, 3).join(" | ")}` : ""}`);
};
const radiograd = (...args) => execFileSync(program, args, { encoding: "utf8", stdio: ["ignore", "pipe", "inherit"], maxBuffer: 1 << 26 });

const cases = {
  async size() {
    const files = readdirSync(dist).filter((f) => /\.(js|wasm|css|html|svg)$/.test(f));
    const bytes = files.reduce((sum, f) => sum + gzipSync(readFileSync(path.join(dist, f)), { level: 9 }).length, 0);
    check(bytes < 1.5e6, `download: ${bytes} bytes compressed, below 1,500,000`);
  },

  async first_step() {
    // What a browser does when it has just started is not the page's time.
    await new Promise((resolve) => setTimeout(resolve, 3000));
    const page = await open("#play=1");
    const at = async (name) => {
      await page.waitForFunction((name) => performance.getEntriesByName(name).length, name, { timeout: 60000 });
      return Math.round(await page.evaluate((name) => performance.getEntriesByName(name)[0].startTime, name));
    };
    const ms = await at("first step");
    const onGpu = await at("first step on the device");
    const device = await page.textContent("#device");
    check(ms < 3000, `first step ${ms} ms after the page was asked for, below 3000 (${device})`);
    check(onGpu < 3000, `the first one on the GPU, whose shaders were compiled meanwhile, after ${onGpu} ms, below 3000 too`);
    clean(page, "first step");
    await page.context().close();
  },

  async train() {
    const settings = { epochs: 4, seed: 1 };
    const hash = `#epochs=${settings.epochs}&seed=${settings.seed}&play=1`;
    const page = await open(hash);
    let rows;
    checkTasks(await longestTask(page, async () => (rows = await done(page, settings.epochs))), "training");
    const accuracy = Number.parseFloat(rows.at(-1)[5]) / 100;
    check(Math.max(...rows.map((r) => Number.parseFloat(r[5]))) >= 90, `cnn2 at 28x28 reaches ${accuracy} on validation images, at least 0.9`);
    await page.screenshot({ path: path.join(out, "trained.png"), fullPage: true });

    // The same run by the program.
    const runFolder = path.join(mkdtempSync(path.join(tmpdir(), "lab-")), "run");
    radiograd("train", "--data", "phantom", "--model", "cnn2", "--size", "28", "--epochs", String(settings.epochs), "--batch", "32", "--seed", String(settings.seed), "--device", process.env.LAB_DEVICE ?? "cpu", "--out", runFolder);
    const native = readFileSync(path.join(runFolder, "metrics.jsonl"), "utf8").trim().split("\n").map(JSON.parse);
    native.forEach((n, i) => {
      const [loss, val] = [Number(rows[i][2]), Number(rows[i][4])];
      const tolerance = i === 0 ? 2e-3 : 2e-2;
      const off = (a, b) => Math.abs(a - b) / Math.max(b, 0.05);
      check(
        off(loss, n.train_loss) < tolerance && off(val, n.val_loss) < 3 * tolerance,
        `epoch ${i + 1}: loss ${loss} here, ${n.train_loss.toFixed(4)} natively; validation ${val} and ${n.val_loss.toFixed(4)}`,
      );
    });

    // Weights saved here are read by the program.
    const [download] = await Promise.all([page.waitForEvent("download"), page.click("#save")]);
    const weights = path.join(out, download.suggestedFilename());
    await download.saveAs(weights);
    const command = (await page.textContent("#command")).split(" ").slice(1);
    command[command.indexOf("--weights") + 1] = weights;
    const answer = JSON.parse(radiograd(...command, "--json", "--device", "cpu"));
    const measured = answer.result.metrics?.accuracy ?? answer.result.accuracy?.value ?? answer.result.accuracy;
    check(Math.abs(measured - accuracy) < 1e-3, `the program measures ${measured} with the weights saved here, the page ${accuracy}`);

    // And they are read here again: untrained, the network then decides as it did.
    const before = await page.textContent("#answer");
    await page.click("#reset");
    await ready(page);
    await page.waitForFunction((text) => document.getElementById("answer").textContent !== text, before);
    await page.setInputFiles("#restore", weights);
    const same = (text) => document.getElementById("answer").textContent.replace("untrained, ", "") === text.replace("untrained, ", "");
    await page.waitForFunction(same, before, { timeout: 30000 }).then(
      () => check(true, "weights loaded again give the same answer"),
      async () => check(false, `weights loaded again give ${await page.textContent("#answer")}, not ${before}`),
    );

    // The link repeats the run, to the last digit that is shown.
    await page.goto("about:blank");
    await page.goto(home + hash);
    const again = await done(page, settings.epochs);
    check(JSON.stringify(again) === JSON.stringify(rows), "the same link gives the same run");
    clean(page, "training");
    await page.context().close();
    rmSync(path.dirname(runFolder), { recursive: true });
  },

  async race() {
    const page = await open("#nets=cnn1%2Ccnn2%2Ccnn3&chain=conv8-relu-pool-flatten-dense2&epochs=1&images=400&play=1");
    let rows;
    checkTasks(await longestTask(page, async () => (rows = await done(page, 4))), "race");
    check(new Set(rows.map((r) => r[0])).size === 4, `four networks race: ${rows.map((r) => `${r[0]} ${r[5]}`).join(", ")}`);
    await page.selectOption("select[name=lr]", "0.003");
    await page.screenshot({ path: path.join(out, "race.png"), fullPage: true });
    await page.fill("input[name=chain]", "conv8-relo-dense2");
    await page.press("input[name=chain]", "Tab");
    await page.waitForSelector("#notice:not([hidden])");
    const notice = await page.textContent("#notice");
    check(/relo/.test(notice), `a slip in a chain is named: ${notice.trim().slice(0, 110)}`);
    await page.fill("input[name=chain]", "conv8-relu-flatten-dense2");
    await page.press("input[name=chain]", "Tab");
    await page.waitForSelector("#notice[hidden]", { state: "attached" });
    check(true, "and forgotten once it is mended");
    clean(page, "race");
    await page.context().close();
  },

  async rate() {
    const page = await open("#epochs=2&images=200");
    await ready(page);
    await page.click("#step");
    await page.waitForFunction(() => /step 1 /.test(document.getElementById("where").textContent));
    await page.selectOption("select[name=lr]", "0.01");
    await page.waitForFunction(() => /rates=1%3A0.01/.test(location.hash));
    await page.click("#play");
    const rows = await done(page, 2);
    const link = page.url();
    await page.goto("about:blank");
    await page.goto(link);
    const again = await done(page, 2);
    check(JSON.stringify(again) === JSON.stringify(rows), `a rate changed at step 1 is in the link, and repeats: ${rows.map((r) => r[2]).join(" ")}`);
    await page.fill("input[name=seed]", "5");
    await page.press("input[name=seed]", "Tab");
    await page.waitForFunction(() => /^#[^#]*seed=5/.test(location.hash));
    check((await page.inputValue("select[name=lr]")) === "0.001" && !/rates/.test(page.url()), "another seed begins at the first rate, and the form says so");
    clean(page, "rate");
    await page.context().close();
  },

  /** The GPU goes while its shaders are being compiled: the training goes on on the CPU, where it began. */
  async lost() {
    const page = await open("#nets=cnn1%2Ccnn2&epochs=1&images=400&play=1");
    const cdp = await browser.newBrowserCDPSession();
    await page.waitForFunction(() => performance.getEntriesByName("first step").length, null, { timeout: 60000 });
    check(!(await page.evaluate(() => performance.getEntriesByName("first step on the device").length)), "the first step is done before the shaders are compiled");
    // The connection to the process ends with it.
    await cdp.send("Browser.crashGpuProcess").catch(() => {});
    const rows = await done(page, 2);
    check(rows.length === 2 && (await page.isVisible("#without")), `the GPU is lost, and the training goes on: ${(await page.textContent("#without")).trim().slice(0, 120)}`);
    check((await page.textContent("#device")).startsWith("CPU"), `the page says where: ${await page.textContent("#device")}`);
    await page.click("#reset");
    await ready(page);
    await page.click("#step");
    await page.waitForFunction(() => /step 1 /.test(document.getElementById("where").textContent));
    check(true, "and it begins anew there");
    await page.context().close();
  },

  async drops() {
    const base = mkdtempSync(path.join(tmpdir(), "lab-"));
    const folder = path.join(base, "films");
    radiograd("data", "phantom", folder, "--images", "120", "--size", "40");
    writeFileSync(path.join(folder, "train", "NORMAL", "broken.jpeg"), "no image");
    const page = await open("");
    await ready(page);
    const cdp = await page.context().newCDPSession(page);
    const drop = async (...files) => {
      const data = { items: [], files, dragOperationsMask: 1 };
      for (const type of ["dragEnter", "dragOver", "drop"]) await cdp.send("Input.dispatchDragEvent", { type, x: 600, y: 300, data });
    };
    const source = (pattern) => page.waitForFunction((p) => new RegExp(p).test(document.getElementById("source").textContent), pattern, { timeout: 120000 });
    await drop(folder);
    await source("^films.*left out as unreadable: 1");
    check(true, `a dropped folder: ${(await page.textContent("#source")).trim()}`);
    await ready(page);
    await page.click("#step");
    await page.waitForFunction(() => /step 1 /.test(document.getElementById("where").textContent));
    await page.click("#phantom");
    await source("^phantom");
    await page.setInputFiles("#folder", folder);
    await source("^films");
    check(true, "the same folder, chosen by the button");
    const npz = process.env.RADIOGRAD_DATA && ["pneumoniamnist.npz", "pneumoniamnist/pneumoniamnist.npz"].map((f) => path.join(process.env.RADIOGRAD_DATA, f)).find(existsSync);
    if (npz) {
      await drop(npz);
      await source("^pneumoniamnist");
      check(/1.?214.*3.?494.*524/.test(await page.textContent("#source")), `a dropped .npz file: ${(await page.textContent("#source")).trim()}`);
      await ready(page);
      await page.click("#step");
      await page.waitForFunction(() => /step 1 /.test(document.getElementById("where").textContent));
    } else console.log("skip .npz file: RADIOGRAD_DATA names no folder with pneumoniamnist.npz");
    writeFileSync(path.join(base, "bad.npz"), "no archive");
    await drop(path.join(base, "bad.npz"));
    await page.waitForSelector("#notice:not([hidden])");
    await ready(page);
    const notice = await page.isVisible("#notice") && (await page.textContent("#notice")).trim();
    check(/bad\.npz/.test(notice), `a broken file is named, also when phantom images train in its place: ${notice.slice(0, 120)}`);
    // One image, looked at and explained by the network in training.
    const film = path.join(folder, "train", "PNEUMONIA", readdirSync(path.join(folder, "train", "PNEUMONIA"))[0]);
    await drop(film);
    await page.waitForFunction((n) => document.getElementById("seeing").textContent.includes(n), path.basename(film));
    check(/says (NORMAL|PNEUMONIA)/.test(await page.textContent("#answer")) && (await page.locator("#gallery input:checked").count()) === 0, `one dropped image: ${await page.textContent("#seeing")} ${(await page.textContent("#answer .verdict")).trim()}`);
    await page.click("#explain-image");
    await page.waitForFunction((n) => document.getElementById("explained").textContent.includes(n), path.basename(film), { timeout: 60000 });
    await page.waitForFunction(() => document.querySelector("#explain").shadowRoot?.querySelector(".bars"));
    check(true, `and it is explained: ${await page.textContent("#explained")}`);
    await page.setInputFiles("#own", path.join(base, "bad.npz"));
    await page.waitForFunction(() => /bad\.npz.*(no|not) /.test(document.getElementById("notice").textContent));
    check(true, `what is no image is refused: ${(await page.textContent("#notice")).trim()}`);
    await page.click("#others");
    await page.waitForFunction(() => /val\//.test(document.getElementById("seeing").textContent));
    clean(page, "drops");
    // A link about images of one's own keeps what it says until they are there.
    await page.goto("about:blank");
    await page.goto(`${home}#data=own&rates=2%3A0.01&image=3`);
    await ready(page);
    await page.waitForFunction(() => /drop them here again/.test(document.getElementById("notice").textContent));
    check((await page.inputValue("select[name=lr]")) === "0.001", "a link about images of one's own asks for them");
    await drop(folder);
    await source("^films");
    await ready(page);
    check(/data=own/.test(page.url()) && /rates=2%3A0.01/.test(page.url()) && /image=3/.test(page.url()) && (await page.isHidden("#notice")), `and then does what it says: ${new URL(page.url()).hash}`);
    await page.context().close();
    rmSync(base, { recursive: true });
  },

  async looks() {
    for (const dark of [false, true]) {
      for (const width of [1440, 390]) {
        const page = await open("#nets=cnn1%2Ccnn2&epochs=1&images=300&play=1", { width, dark });
        await done(page, 2);
        await page.waitForFunction(() => document.getElementById("answer").textContent !== "");
        const wide = await page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);
        const name = `${dark ? "dark" : "light"}-${width}`;
        check(!wide, `${name}: no scrolling sideways`);
        await page.evaluate(axe);
        const { violations } = await page.evaluate(() => globalThis.axe.run());
        const serious = violations.filter((v) => ["serious", "critical"].includes(v.impact));
        check(serious.length === 0, `${name}: axe finds no serious fault${serious.map((v) => ` [${v.id}: ${v.nodes.map((n) => n.target).join(" ")}]`).join("")}`);
        await page.screenshot({ path: path.join(out, `${name}.png`), fullPage: true });
        clean(page, name);
        await page.context().close();
      }
    }
  },

  async explain() {
    for (const dark of [false, true]) {
      const name = `explain ${dark ? "dark" : "light"}`;
      const page = await open("#nets=cnn1%2Ccnn2&focus=cnn2&epochs=1&images=300&play=1", { dark });
      await done(page, 2);
      // By keyboard, and then of the other network.
      const explain = async (model) => {
        await page.focus("#explain-image");
        await page.keyboard.press("Enter");
        await page.waitForFunction((m) => document.querySelector("#explain")?.shadowRoot?.querySelector(".h1")?.textContent === `What ${m} sees`, model, { timeout: 120000 });
        await page.waitForSelector("#explain .code-box, #explain .way, #explain ul.words");
        await page.waitForFunction(() => /arXiv/.test(document.querySelector("#explain").shadowRoot.textContent));
      };
      const before = await page.evaluate(() => performance.now());
      await page.evaluate(() => (globalThis.longest = 0));
      await explain("cnn2");
      check(true, `${name}: the view is there after ${Math.round((await page.evaluate(() => performance.now())) - before)} ms: ${(await page.textContent("#explained")).trim()}`);
      const longest = [await page.evaluate(() => globalThis.longest)];
      const answer = await page.$$eval("#answer .track", (tracks) => tracks.map((t) => t.previousElementSibling.textContent));
      const shown = await page.$$eval("#explain .bars .value", (values) => values.map((v) => v.textContent));
      const near = (a, b) => Math.abs(Number.parseFloat(a) - Number.parseFloat(b)) < 0.11;
      check(shown.every((v) => answer.some((a) => near(a, v))), `${name}: it gives the lab's probabilities: ${shown.join(", ")}`);
      await page.click("#explain [role=tab]:has-text('Step through')");
      // Every number of the stepped sum, as the page shows it.
      const next = page.locator("#explain [aria-label='one step on']");
      const number = (text) => Number(text.replaceAll("\u2212", "-"));
      let [sum, terms] = [null, 0];
      for (;;) {
        const now = await page.evaluate(() => {
          const root = document.querySelector("#explain").shadowRoot;
          const bold = (s) => [...root.querySelectorAll(`${s} b`)].map((b) => b.textContent);
          return { product: bold(".readout .product"), sum: bold(".readout .sum").at(-1), verdict: root.querySelector(".readout .verdict")?.textContent };
        });
        if (now.product.length) {
          const [a, b, product] = now.product.map(number);
          const off = Math.max(Math.abs(a * b - product), Math.abs((sum ?? 0) + product - number(now.sum)));
          if (off > 1e-4 * (1 + Math.abs(sum))) throw new Error(`${a} x ${b} = ${product}, ${sum} becomes ${now.sum}`);
          terms += 1;
        }
        sum = number(now.sum);
        if (now.verdict) {
          const executor = number(now.verdict.match(/value is (\S+):/)[1]);
          check(terms >= 4 && Math.abs(executor - sum) < 1e-5, `${name}: ${terms} products, shown one by one, add up to ${sum}; ${now.verdict}`);
          break;
        }
        await next.click();
      }
      await page.$eval("#explain .controls input", (slider) => {
        slider.value = slider.max / 2;
        slider.dispatchEvent(new Event("input"));
      });
      const wide = await page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);
      check(!wide, `${name}: no scrolling sideways`);
      await page.evaluate(axe);
      const { violations } = await page.evaluate(() => globalThis.axe.run());
      const serious = violations.filter((v) => ["serious", "critical"].includes(v.impact));
      check(serious.length === 0, `${name}: axe finds no serious fault${serious.map((v) => ` [${v.id}: ${v.nodes.map((n) => n.target).join(" ")}]`).join("")}`);
      await page.screenshot({ path: path.join(out, `explain-${dark ? "dark" : "light"}-1440.png`), fullPage: true });
      await page.setViewportSize({ width: 390, height: 900 });
      const phone = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      check(phone <= 0, `${name}: none on a phone`);
      await page.screenshot({ path: path.join(out, `explain-${dark ? "dark" : "light"}-390.png`), fullPage: true });
      await page.setViewportSize({ width: 1440, height: 1000 });
      await page.check("#race-cnn1 input");
      await page.waitForFunction(() => /another choice/.test(document.getElementById("explained").textContent));
      await page.evaluate(() => (globalThis.longest = 0));
      await explain("cnn1");
      longest.push(await page.evaluate(() => globalThis.longest));
      check(Math.max(...longest) < 100, `${name}: longest tasks of the page's thread ${longest.map(Math.round).join(" and ")} ms, below 100`);
      // The keyboard keeps its place while the view changes under it.
      await page.click("#explain [role=tab]:has-text('Step through')");
      const active = () => page.evaluate(() => document.querySelector("#explain").shadowRoot.activeElement?.getAttribute("aria-label") ?? "nothing");
      const column = () => page.$$eval("#explain .stepped .fields input", (fields) => Number(fields.at(-1).value));
      await page.focus("#explain .stepped canvas.pickable");
      // To the left border first: the page begins where something happens.
      for (let left = await column(); left > 0; left--) await page.keyboard.press("ArrowLeft");
      await page.keyboard.press("ArrowRight");
      await page.keyboard.press("ArrowRight");
      check((await column()) === 2 && /Arrow keys choose/.test(await active()), `${name}: two arrow keys go on to column ${await column()}, focus stays on "${await active()}"`);
      await page.click("#explain .stepped .choice button:has-text(\"One weight's gradient\")");
      await page.focus("#explain .stepped .grid button");
      await page.keyboard.press("Tab");
      await page.keyboard.press("Enter");
      check(/^weight row 0, column 1/.test(await active()) && (await column()) === 1, `${name}: a chosen weight keeps the focus: "${await active()}"`);
      // Space is the view's own there, and does not play.
      await page.focus("#explain [aria-label='next layer']");
      await page.keyboard.press("Space");
      check((await active()) === "next layer", `${name}: "next layer" keeps the focus`);
      check((await page.textContent("#play")) === "Play", `${name}: Space in the view does not play`);
      clean(page, name);
      await page.context().close();
    }
  },

  async keys() {
    const page = await open("#images=200");
    await ready(page);
    await page.focus("#gallery input:checked");
    const before = await page.textContent("#seeing");
    await page.keyboard.press("ArrowRight");
    await page.waitForFunction((t) => document.getElementById("seeing").textContent !== t, before);
    check(true, "arrow keys choose another image");
    await page.focus("#layers input:checked");
    const title = await page.textContent("#maps-title");
    await page.keyboard.press("ArrowRight");
    await page.waitForFunction((t) => document.getElementById("maps-title").textContent !== t, title);
    check(true, "arrow keys choose another layer");
    await page.focus("#play");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.getElementById("play").textContent === "Pause");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.getElementById("play").textContent === "Play");
    check(true, "the keyboard plays and pauses");
    clean(page, "keys");
    await page.context().close();
  },

  async cpu() {
    await browser.close();
    browser = await launch(false);
    const page = await open("#epochs=1&images=200&play=1");
    let rows;
    checkTasks(await longestTask(page, async () => (rows = await done(page, 1))), "cpu");
    check(/CPU/.test(await page.textContent("#device")), `without WebGPU the CPU trains: ${rows[0].join(" ")}`);
    check(await page.isVisible("#without") && /WebGPU/.test(await page.textContent("#without")), `and the page says so: ${(await page.textContent("#without")).trim().slice(0, 90)}`);
    clean(page, "cpu");
    await page.context().close();
  },
};

for (const [name, run] of Object.entries(cases)) {
  if (only && !only.includes(name)) continue;
  try {
    await run();
  } catch (e) {
    check(false, `${name}: ${e.message.split("\n").slice(0, 3).join(" ")}`);
    for (const context of browser.contexts()) {
      for (const page of context.pages()) {
        await page.screenshot({ path: path.join(out, `fault-${name}.png`) }).catch(() => {});
        console.log(`     notice: ${(await page.textContent("#notice").catch(() => "")).trim()}; console: ${(page.said ?? []).slice(0, 5).join(" | ")}`);
        await context.close();
      }
    }
  }
}
await browser.close();
server.close();
console.log(faults.length ? `${faults.length} of ${results.length} checks failed` : `all ${results.length} checks passed`);
process.exit(faults.length ? 1 : 0);
