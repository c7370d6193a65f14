// Keeps a connection to a room of a hub. How to use it: hublet.d.ts, beside this file.
// The hub serves hublet.min.js, which `npm run minify --prefix tests` makes of this file.

// A connection is looked at once in so many milliseconds.
const TICK = 10_000;
// After so many ticks of silence the hub is asked for an answer,
const ASK = 2;
// and after so many the connection is given up.
const LOST = 4;

export function connect(url, { message, state, token, protocols } = {}) {
	const base = new URL(url, import.meta.url);
	const events = /^(?!.*\/ws\/).*\/sse(\/|$)/.test(base.pathname);
	base.protocol = base.protocol.replace(/http|ws/, events ? 'http' : 'ws');
	base.search += (base.search && '&') + 'probe=1';

	// `link` is the WebSocket or EventSource of now, `{}` while the token is on its way, and
	// undefined in a pause. What another one says does not count.
	let link, timer, opened, silent, lost, asked, tries = 1;

	const isFunction = option => typeof option == 'function';
	const get = option => isFunction(option) ? option() : option;

	async function open() {
		clearTimeout(timer);
		let mine = link = {};
		opened = undefined;
		silent = asked = 0;
		lost = LOST;
		state?.({ state: 'connecting' });
		try {
			const shown = await get(token);
			const names = [].concat(await get(protocols) ?? []);
			if (mine != link) return;
			let at = base;
			// A subprotocol stands in no log, but cannot be any text.
			if (shown && !events && /^[\w.~+-]+$/.test(shown)) names.push('hublet.token', shown);
			else if (shown) at += '&token=' + encodeURIComponent(shown);
			mine = link = events ? new EventSource(at) : new WebSocket(at, names);
		} catch (error) {
			if (mine == link) end({ reason: String(error) });
			return;
		}
		link.binaryType = 'arraybuffer';
		const on = (name, call) => mine.addEventListener(name, event => {
			if (mine == link) call(event);
		});
		const hear = data => {
			silent = 0;
			// Perhaps it is not the answer but as empty as that, which comes next then.
			if (asked && data.byteLength === 0) asked--;
			else message?.(data);
		};
		on('open', () => {
			opened = Date.now();
			silent = 0;
			state?.({ state: 'connected' });
		});
		on('message', ({ data }) => hear(data));
		on('close', event => end(events ? JSON.parse(event.data) : event));
		if (!events) return;
		on('binary', ({ data }) => hear(Uint8Array.from(atob(data), c => c.charCodeAt()).buffer));
		// It comes once in so many seconds, give or take a tenth.
		on('ping', ({ data }) => {
			silent = 0;
			lost = Math.max(LOST, data / 9 + 2);
		});
		// After a status other than 200 an EventSource never comes back by itself.
		on('error', end);
	}

	function end({ code = 1006, reason = '' }) {
		stop();
		const renews = reason == 'token expired' && (isFunction(token) || isFunction(protocols));
		if (code == 1000 || code == 1008 && !renews || code > 4499) {
			close();
			state?.({ state: 'closed', code, reason });
			return;
		}
		if (code == 1012 || Date.now() - opened > 10_000) tries = 0;
		const pause = Math.min(30_000, (code == 1013 ? 5_000 : 500) * 2 ** tries++);
		const retryIn = Math.round(pause * (1 + Math.random()) / 2);
		timer = setTimeout(open, retryIn);
		state?.({ state: 'waiting', code, reason, retryIn });
	}

	// Browsers hide pings: an empty binary message is a question, which the hub answers alike.
	function ask() {
		if (events || link?.readyState != 1) return;
		silent = ASK;
		asked++;
		link.send(new Uint8Array);
	}

	function tick() {
		if (!link) return;
		if (++silent >= lost) end({ reason: 'no answer' });
		else if (silent == ASK) ask();
	}

	// The network is back, or the page is looked at again.
	function wake({ type }) {
		if (!link && type == 'online') open();
		else if (silent < ASK) ask();
	}

	function stop() {
		clearTimeout(timer);
		link?.close?.();
		link = undefined;
	}

	function close() {
		stop();
		clearInterval(watch);
		listen('removeEventListener');
	}

	function listen(verb) {
		for (const name of ['online', 'visibilitychange']) globalThis[verb]?.(name, wake);
	}

	const watch = setInterval(tick, TICK);
	listen('addEventListener');
	open();
	return {
		send: data => !events && link?.readyState == 1 && !link.send(data),
		close,
	};
}
