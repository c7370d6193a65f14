// Keeps a connection to a room of a hub. hublet.d.ts says how to use it.
// The hub serves hublet.min.js: `npm run minify --prefix tests` makes it from this file.

// Milliseconds between two looks at a connection.
const TICK = 10_000;
// Ticks of silence before the module asks the hub for an answer.
const ASK = 2;
// Ticks of silence before the module gives the connection up.
const LOST = 4;

export function connect(url, { message, state, token, protocols, since, missed } = {}) {
	const base = new URL(url, import.meta.url);
	const events = /^(?!.*\/ws\/).*\/sse(\/|$)/.test(base.pathname);
	base.protocol = base.protocol.replace(/http|ws/, events ? 'http' : 'ws');
	base.search += (base.search && '&') + 'probe=1';

	// `link` is the current WebSocket or EventSource, `{}` while the token is on its way, and
	// undefined in a pause. Events of an earlier link are ignored. `since` is the position of the last
	// message, once it is known, and `first` says that the next message is a WebSocket's position.
	let link, timer, opened, silent, lost, asked, first, tries = 1;
	const counts = since != null;

	const isFunction = option => typeof option == 'function';
	const get = option => isFunction(option) ? option() : option;

	async function open() {
		clearTimeout(timer);
		let mine = link = {};
		opened = undefined;
		silent = asked = 0;
		lost = LOST;
		first = counts && !events;
		state?.({ state: 'connecting' });
		try {
			const shown = await get(token);
			const names = [await get(protocols) ?? []].flat();
			if (mine != link) return;
			let at = counts ? base + '&since=' + since : base;
			// Logs show URLs and no subprotocols, but a subprotocol cannot have every character.
			if (shown && !events && /^[\w.~+-]+$/.test(shown)) names.push('hublet.token', shown);
			else if (shown) at += '&token=' + encodeURIComponent(shown);
			mine = link = events ? new EventSource(at) : new WebSocket(at, names);
		} catch (error) {
			if (mine == link) end({ reason: String(error) });
			return;
		}
		link.binaryType = 'arraybuffer';
		const on = (name, call) => mine.addEventListener(name, event => {
			if (mine != link) return;
			silent = 0;
			// An event says its position, or that of the last one. A WebSocket's messages are counted.
			since = event.lastEventId || since;
			call(event);
		});
		const hear = data => {
			if (first) {
				if (since > 0 && since != data) missed?.();
				since = +data;
				first = 0;
			}
			// This may be an empty message of another client. Then the answer follows, and the
			// program gets it in place of that message.
			else if (asked && data.byteLength == 0) asked--;
			else {
				if (first === 0) since++;
				message?.(data, since);
			}
		};
		on('open', () => {
			opened = Date.now();
			state?.({ state: 'connected' });
		});
		on('message', ({ data }) => hear(data));
		on('close', event => end(events ? JSON.parse(event.data) : event));
		if (!events) return;
		on('binary', ({ data }) => hear(Uint8Array.from(atob(data), c => c.charCodeAt()).buffer));
		// Its data is the interval in seconds. The hub varies the interval by a tenth.
		on('ping', ({ data }) => (lost = Math.max(LOST, data / 9 + 2)));
		on('gap', () => missed?.());
		// An EventSource does not reconnect after a status other than 200.
		on('error', end);
	}

	function end({ code = 1006, reason = '' }) {
		stop();
		const renews = reason == 'token expired' && (isFunction(token) || isFunction(protocols));
		if (code == 1000 || code == 1008 && !renews || code > 4499) {
			close();
			state?.({ state: 'closed', code, reason });
		} else {
			if (code == 1012 || Date.now() - opened > 10_000) tries = 0;
			const pause = Math.min(30_000, (code == 1013 ? 5_000 : 500) * 2 ** tries++);
			const retryIn = Math.round(pause * (1 + Math.random()) / 2);
			timer = setTimeout(open, retryIn);
			state?.({ state: 'waiting', code, reason, retryIn });
		}
	}

	// Browsers hide pings. The hub answers an empty binary message with another.
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

	// The network is back, or the page was shown or hidden.
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
