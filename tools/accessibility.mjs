// make accessibility: axe-core on pages of the built site, and of any other page that is named, in headless Chromium.
// node tools/accessibility.mjs MODULES PICTURES PAGE.html ...: exits with 1 for a fault that axe calls serious or critical.
import { createRequire } from "node:module";
import { mkdirSync } from "node:fs";
import { basename, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [modules, pictures, ...pages] = process.argv.slice(2);
const require = createRequire(resolve(modules, "package.json"));
const puppeteer = require("puppeteer-core");
const axe = require.resolve("axe-core/axe.min.js");

const chromium = process.env.CHROMIUM ?? "/usr/bin/chromium";
const browser = await puppeteer.launch({ executablePath: chromium, args: ["--no-sandbox", "--force-color-profile=srgb"] });
const outside = new Set();
let faults = 0;
mkdirSync(pictures, { recursive: true });
for (const page of pages) {
	for (const [width, scheme] of [[390, "light"], [1280, "light"], [1280, "dark"]]) {
		const context = await browser.createBrowserContext(); // a reader who was never here, and chose no scheme yet
		const tab = await context.newPage();
		tab.setDefaultTimeout(180000);
		tab.on("request", (asked) => /^https?:/.test(asked.url()) && outside.add(asked.url()));
		await tab.setViewport({ width, height: 900 });
		await tab.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
		await tab.goto(pathToFileURL(resolve(page)).href, { waitUntil: "load" });
		const name = `${basename(resolve(page, ".."))}-${basename(page, ".html")}-${width}-${scheme}`;
		await tab.screenshot({ path: `${pictures}/${name}.png` });
		const wide = await tab.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
		if (wide > 0) {
			faults += 1;
			console.log(`${page} at ${width} px: ${wide} px wider than the screen`);
		}
		await tab.addScriptTag({ path: axe });
		const { violations } = await tab.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
		for (const { id, impact, help, nodes } of violations) {
			const serious = impact === "serious" || impact === "critical";
			faults += serious ? 1 : 0;
			const first = `${nodes[0].target} ${nodes[0].failureSummary.split("\n")[1]}`;
			console.log(`${page} at ${width} px, ${scheme}: ${impact}: ${id}: ${help}: ${nodes.length}, first ${first}`);
		}
		await context.close();
	}
}
await browser.close();
for (const address of outside) console.log(`fetched from elsewhere: ${address}`);
console.log(`${pages.length} pages at 390 and 1280 px, light and dark: ${faults} serious faults, ${outside.size} things fetched from elsewhere`);
process.exit(faults + outside.size > 0 ? 1 : 0);
