// The console in headless Chromium: with the demonstration running, and with
// 10,000 endpoints. It ends with status 1 at the first thing that is not as it
// should be, and leaves pictures in OUT.
//
//   node console.mjs ISTHMUS OUT     (make console-test)
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { request } from "node:http";
import { chromium } from "playwright-core";

const isthmus = resolve(process.argv[2]), out = resolve(process.argv[3]);
const dir = mkdtempSync(join(tmpdir(), "isthmus-console-"));
const children = [];
mkdirSync(out, { recursive: true });

// run starts the program and waits until it has said what is waited for.
function run(args, said) {
  const child = spawn(isthmus, args, { cwd: dir });
  children.push(child);
  return new Promise((done, fail) => {
    let text = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (b) => {
        text += b;
        const m = said.exec(text);
        if (m) done(m);
      });
    }
    child.on("exit", () => fail(new Error("it has ended: " + text)));
    setTimeout(() => fail(new Error("it is not ready: " + text)), 120_000).unref();
  });
}

const freePort = () => new Promise((done) => {
  const s = createServer().listen(0, "127.0.0.1", () => { const { port } = s.address(); s.close(() => done(port)); });
});

const get = (port, host, path) => new Promise((done, fail) => {
  request({ port, host: "127.0.0.1", path, headers: { host } }, (r) => { r.resume(); r.on("end", () => done(r.statusCode)); }).on("error", fail).end();
});

async function large() {
  const clusters = ["us-central", "us-west", "eu-north", "ap-south", "sa-east"];
  const resources = Array.from({ length: 500 }, (_, s) => `apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: svc${s}, namespace: team${s % 20}}
spec:
  hosts: [svc${s}.team${s % 20}.example]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [${Array.from({ length: 20 }, (_, e) => `{address: 10.${Math.trunc(s / 250)}.${s % 250}.${e + 1}, network: ${clusters[e % 5]}, labels: {app: svc${s}, version: v${(e % 2) + 1}}}`)}]
`);
  resources.push(`apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: odd}
spec: {hosts: [odd.example], http: [{name: "<img src=x onerror=alert(2)>", directResponse: {status: 200}}]}
`);
  writeFileSync(join(dir, "mesh.yaml"), resources.join("---\n"));
  const [admin, outbound] = [await freePort(), await freePort()];
  writeFileSync(join(dir, "node.yaml"), `node: {name: large, cluster: us-central, address: 127.0.0.1}
listeners: {outbound: "127.0.0.1:${outbound}", inbound: "", admin: "127.0.0.1:${admin}", metrics: ""}
`);
  await run(["run", "--bootstrap", "node.yaml", "--config", "mesh.yaml"], /isthmus ready/);
  return { admin: `http://127.0.0.1:${admin}`, outbound };
}

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });

// open opens a page; whatever it complains of is a fault, and so is a dialog.
async function open(admin, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1360, height: 860 }, colorScheme: "dark", ...options });
  const page = await context.newPage();
  page.faults = [];
  page.on("console", (m) => ["error", "warning"].includes(m.type()) && page.faults.push(m.text()));
  page.on("pageerror", (e) => page.faults.push(e.message));
  page.on("dialog", (d) => { page.faults.push("a dialog: " + d.message()); d.dismiss(); });
  page.on("request", (r) => r.url().startsWith(admin) || page.faults.push("it asks elsewhere: " + r.url()));
  page.show = async (hash) => { await page.goto(admin + "/#/" + hash); await page.waitForSelector("#tabs a[aria-current]"); };
  await page.show("mesh");
  return page;
}

const texts = (page, selector) => page.locator(selector).allInnerTexts();

async function story(name, tell) {
  process.stdout.write(name + " ... ");
  await tell();
  console.log("ok");
}

try {
  const [, gateway, demo] = await run(["demo"], /geo-location: us-west' http:\/\/127\.0\.0\.1:(\d+)[^]*isthmus members --admin (http:\/\/127\.0\.0\.1:\d+)/);
  await story("the demonstration: every page, dark and light, wide and narrow", async () => {
    for (const [colorScheme, width] of [["dark", 1360], ["light", 1360], ["dark", 420], ["light", 420]]) {
      const page = await open(demo, { colorScheme, viewport: { width, height: 860 } });
      await page.waitForFunction(() => document.querySelectorAll(".map .card").length === 2);
      for (const name of ["mesh", "services", "endpoints", "routes", "members", "certificates", "configuration"]) {
        await page.show(name);
        await page.waitForFunction(() => document.querySelector(".item, table, .facts"));
        const wider = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
        assert(!wider, `${name} is wider than ${width}`);
        await page.screenshot({ path: join(out, `${name}-${colorScheme}-${width}.png`) });
      }
      assert.deepEqual(page.faults, []);
      await page.context().close();
    }
  });
  await story("keys", async () => {
    const page = await open(demo);
    await page.keyboard.press("2");
    await page.waitForFunction(() => location.hash === "#/services" && document.querySelectorAll(".item").length > 4);
    await page.keyboard.press("/");
    await page.keyboard.type("order");
    await page.waitForFunction(() => document.querySelectorAll(".item").length === 1);
    await page.keyboard.press("Escape");
    assert.equal(await page.inputValue("input[type=search]"), "order");
    await page.keyboard.press("j");
    await page.keyboard.press("Enter");
    assert.match((await texts(page, "#detail")).join(), /order-service\.production/);
    await page.keyboard.press("Escape");
    assert(await page.locator("#detail").isHidden());
    await page.keyboard.press("]");
    await page.waitForFunction(() => location.hash.startsWith("#/endpoints"));
    await page.keyboard.press("?");
    assert(await page.locator("#keys").isVisible());
    assert.deepEqual(page.faults, []);
    await page.context().close();
  });

  await story("who reads stays where they are, while figures move", async () => {
    const page = await open(demo);
    // The demonstration itself asks nothing any more, once it has told its story.
    const asking = setInterval(() => { if (Math.random() < 0.5) get(gateway, "user-service.example.com", "/").catch(() => {}); }, 50);
    const link = page.locator(".columns table tbody a").first();
    await link.focus();
    const rows = () => page.evaluate(() => document.querySelector(".columns table").textContent);
    for (let n = 0, before = await rows(); n < 2;) { // twice other figures
      await page.waitForTimeout(500);
      const now = await rows();
      if (now !== before) { n++; before = now; }
      assert(await link.evaluate((a) => a === document.activeElement), "the focus is lost");
    }
    clearInterval(asking);
    await page.show("endpoints");
    await page.waitForSelector(".item");
    const age = () => page.evaluate(() => document.querySelector(".item > span:last-child").textContent);
    await page.evaluate(() => getSelection().selectAllChildren(document.querySelector(".item .mono")));
    const [selected, young] = [await page.evaluate(() => String(getSelection())), await age()];
    assert.match(selected, /\d:\d+$/);
    for (let n = 0; await age() === young; n++) { assert(n < 300, "nothing ages"); await page.waitForTimeout(500); }
    assert.equal(await page.evaluate(() => String(getSelection())), selected);
    await page.show("constructor");
    await page.waitForSelector(".map .card");
    assert.deepEqual(page.faults, []);
    await page.context().close();
  });

  const { admin, outbound } = await large();
  await story("10,000 endpoints", async () => {
    const page = await open(admin);
    await page.show("endpoints");
    await page.waitForFunction(() => document.querySelectorAll(".item").length > 10);
    assert.match((await texts(page, ".tools [role=status]")).join(), /10.000/);
    for (const row of [5000, 9999, 0]) {
      await page.evaluate((top) => { document.querySelector(".window").scrollTop = top; }, row * 30);
      await page.waitForFunction((i) => document.querySelector(`.item[data-i="${i}"]`), row);
    }
    const rows = await page.locator(".item").count();
    assert(rows < 100, `${rows} rows are there, though few are in view`);
    await page.keyboard.press("/");
    await page.keyboard.type("svc77. version=v1 -us-west");
    await page.waitForFunction(() => document.querySelectorAll(".item").length === 8);
    await page.keyboard.press("Enter"); // no row is chosen: the search is over
    await page.keyboard.press("j");
    assert.equal(await page.inputValue("input[type=search]"), "svc77. version=v1 -us-west");
    assert.equal(await page.locator(".item.on").count(), 1);
    await page.screenshot({ path: join(out, "large-endpoints.png") });
    await page.show("mesh");
    await page.waitForFunction(() => document.querySelectorAll(".map .card").length === 5);
    await page.screenshot({ path: join(out, "large-mesh.png") });
    assert.deepEqual(page.faults, []);
    await page.context().close();
  });
  await story("what others send is text", async () => {
    await get(outbound, "nobody.example", "/&lt;img%20src=x%20onerror='alert(1)'&gt;");
    const page = await open(admin);
    await page.waitForFunction(() => [...document.querySelectorAll("#tabs a")].some((a) => a.textContent.startsWith("Failures")));
    await page.show("failures");
    await page.waitForSelector(".item");
    await page.keyboard.press("j");
    await page.keyboard.press("Enter");
    assert.match((await texts(page, ".item")).join(), /nobody\.example\/&lt;img/);
    assert.equal(await page.locator("main img, main script, aside img, aside script").count(), 0);
    await page.screenshot({ path: join(out, "failures.png") });
    await page.show("routes?q=onerror");
    await page.waitForSelector(".item");
    await page.keyboard.press("j");
    await page.keyboard.press("Enter");
    assert.match((await texts(page, "#detail")).join(), /<img src=x onerror=alert\(2\)>/);
    assert.equal(await page.locator("main img, aside img").count(), 0);
    assert.deepEqual(page.faults, []);
    await page.context().close();
  });
  await story("a change, what it was, and back", async () => {
    const page = await open(admin);
    writeFileSync(join(dir, "mesh.yaml"), "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: one}\nspec: {hosts: [one.example], resolution: STATIC, location: MESH_INTERNAL, ports: [{number: 80, name: http, protocol: HTTP}], endpoints: [{address: 10.9.9.9}]}\n");
    await page.show("configuration");
    await page.getByRole("button", { name: "bring back" }).waitFor({ timeout: 30_000 });
    page.removeAllListeners("dialog");
    page.once("dialog", (d) => d.accept());
    await page.getByRole("button", { name: "bring back" }).first().click();
    await page.waitForFunction(() => document.querySelector("main").textContent.includes("10000 of 10000 ready"), null, { timeout: 30_000 });
    assert.deepEqual(page.faults, []);
    await page.context().close();
  });
  await story("a proxy that is gone, and comes again", async () => {
    const page = await open(admin);
    children.at(-1).removeAllListeners("exit");
    children.at(-1).kill("SIGKILL");
    await page.waitForSelector("#away:not([hidden])");
    assert.match((await texts(page, "#away")).join(), /does not answer/);
    await page.screenshot({ path: join(out, "away.png") });
    let asked = 0; // of a list that is not there: as often as of the mesh, not again and again
    page.on("requestfailed", () => asked++);
    await page.evaluate(() => { location.hash = "#/endpoints?q=gone"; });
    await page.waitForSelector(".empty.bad");
    await page.waitForTimeout(3000);
    assert(asked < 10, `it has asked ${asked} times within three seconds`);
    await run(["run", "--bootstrap", "node.yaml", "--config", "mesh.yaml"], /isthmus ready/);
    await page.waitForSelector("#away[hidden]", { state: "attached" });
    await page.show("endpoints");
    await page.waitForSelector(".item");
    await page.context().close();
  });
} finally {
  await browser.close();
  for (const c of children) { c.removeAllListeners("exit"); c.kill("SIGTERM"); }
  await Promise.all(children.map((c) => c.exitCode !== null || c.signalCode !== null || new Promise((done) => c.once("exit", done))));
  rmSync(dir, { recursive: true, force: true });
}
