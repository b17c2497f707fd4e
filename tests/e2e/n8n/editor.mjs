// node editor.mjs N8N_URL CHROMIUM FOLDER WORKFLOW_ID...: each workflow's canvas as FOLDER/ID.png; prints what is on it.
import { createRequire } from 'node:module';

const [address, chromium, folder, playwright, ...workflows] = process.argv.slice(2);
const { chromium: browserType } = createRequire(import.meta.url)(playwright);
const owner = { email: 'owner@example.org', firstName: 'Test', lastName: 'Owner', password: 'Agentflow-2026' };
const browser = await browserType.launch({ executablePath: chromium, args: ['--no-sandbox'] });
const page = await browser.newPage({ viewport: { width: 1400, height: 800 }, deviceScaleFactor: 1 });
const setup = await page.request.post(`${address}/rest/owner/setup`, { data: owner });
if (!setup.ok()) {
	await page.request.post(`${address}/rest/login`, {
		data: { emailOrLdapLoginId: owner.email, password: owner.password },
	});
}
const shown = {};
for (const workflow of workflows) {
	await page.goto(`${address}/workflow/${workflow}`, { waitUntil: 'domcontentloaded' });
	await page.waitForSelector('[data-test-id="canvas-node"]', { timeout: 60000 });
	await page.keyboard.press('Escape');
	await page.waitForTimeout(1500);
	await page.keyboard.press('1');
	await page.waitForTimeout(1200);
	shown[workflow] = await page.$$eval('[data-test-id="canvas-node"]', (nodes) =>
		nodes.map((node) => node.getAttribute('data-node-name') ?? node.textContent.trim()),
	);
	await page.screenshot({ path: `${folder}/${workflow}.png` });
}
await browser.close();
console.log(JSON.stringify(shown));
