// Hears a room as server-sent events with a version of the npm package eventsource, and publishes
// to it. Each event must be heard before the next is published, and nothing else may be an event.
const [, , version, url] = process.argv;
const module = await import(`eventsource${version}`);
const EventSource = module.EventSource ?? module.default;

const heard = [];
let hear = () => {};
const source = new EventSource(url);
source.onmessage = (event) => {
  heard.push(event.data);
  hear();
};
await new Promise((resolve) => {
  source.onopen = resolve;
});
for (const text of ['one', 'two\nlines', 'three']) {
  const next = new Promise((resolve) => {
    hear = resolve;
  });
  await fetch(url.replace('/sse/', '/pub/'), { method: 'POST', body: text });
  await next;
  if (heard.at(-1) !== text) throw new Error(`${JSON.stringify(heard.at(-1))} instead of ${text}`);
}
// Heartbeats come meanwhile.
await new Promise((resolve) => setTimeout(resolve, 500));
if (heard.length !== 3) throw new Error(JSON.stringify(heard));
console.log('done');
process.exit(0);
