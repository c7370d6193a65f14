// connect('ws/lobby', { message, state }) stays connected to this hub.
export function connect(url, { message, state = () => {}, protocols }) {
	let ws, timer, tries = 1;
	(function open() {
		let since;
		state('connecting');
		ws = new WebSocket(new URL(url, import.meta.url.replace('http', 'ws')), protocols);
		ws.binaryType = 'arraybuffer';
		ws.onopen = () => state('connected', since = Date.now());
		ws.onmessage = e => message(e.data);
		ws.onclose = ({ code, reason }) => {
			const why = `${reason || 'closed'} (${code})`;
			// Stay away.
			if (code == 1000 || code == 1008 || code > 4499) return state(why);
			if (code == 1012 || Date.now() - since > 1e4) tries = 0;
			const wait = Math.min(30, (code == 1013 ? 5 : .5) * 2 ** tries++) * (1 + Math.random()) / 2;
			state(`${why}, next try in ${wait.toFixed(1)} s`);
			timer = setTimeout(open, wait * 1e3);
		};
	})();
	return {
		send: data => ws.readyState == 1 && !ws.send(data),
		close() { clearTimeout(timer); ws.onclose = null; ws.close(); }
	};
}
