// Opens the hub's page over https, says a word there and hears it: the page's policy and the rule for
// origins hold over TLS too.
import { launch } from '../tools/chromium.mjs';

const browser = await launch();
try {
  const page = await browser.newPage({ ignoreHTTPSErrors: true });
  await page.goto(process.argv[2]);
  await page.waitForSelector('#state.connected');
  // The client module, imported from the page's own origin.
  const heard = await page.evaluate(async () => {
    const { connect } = await import("/hublet.js");
    return new Promise((resolve) => {
      const hub = connect('/ws/news', {
        message: resolve,
        state: ({ state }) => state == 'connected' && hub.send('by Chromium'),
      });
    });
  });
  if (heard !== 'by Chromium') throw new Error(`heard ${JSON.stringify(heard)}`);
} finally {
  await browser.close();
}
