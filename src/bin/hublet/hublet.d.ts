/** Data of a message: a text, or the bytes of a binary message. */
export type Data = string | ArrayBuffer;

/** A position in a room, or a word or number that stands for one. */
export type Position = number | string;

/** A value, or a function that returns it, which is called before each try. */
export type Option<T> = T | (() => T | Promise<T>);

/**
 * What became of the connection.
 *
 * `code` and `reason` are those of the close frame; without one the code is 1006. When a function
 * for the token fails, or nothing is heard for too long, the reason says so.
 */
export type State =
  /** A try begins. */
  | { state: 'connecting' }
  /** The client is in the room. Without `since` it has missed what was said before, and in a pause. */
  | { state: 'connected' }
  /** The connection is lost. The next try begins in `retryIn` milliseconds. */
  | { state: 'waiting'; code: number; reason: string; retryIn: number }
  /** The hub does not want the client back, and there are no further tries. */
  | { state: 'closed'; code: number; reason: string };

export interface Options {
  /**
   * Called with each message. With `since` also with its position: a number, of an event a string of
   * digits. A page that notes it can begin there after a reload.
   */
  message?(data: Data, position?: Position): void;
  /**
   * Where to begin: `'now'`, 0 for all that the room keeps, -3 for its newest three messages, or the
   * position of the last message that was heard. With it the module resumes by itself after a lost
   * connection, and calls `missed` if messages are lost for good. Such a WebSocket hears its own
   * messages, and none that is sent to its user. Without it nothing is resumed.
   */
  since?: Position | null;
  /** Called at a gap: fetch your state anew. What the room still keeps follows as messages. */
  missed?(): void;
  /** Called each time the state changes. */
  state?(state: State): void;
  /**
   * The token to show. A function is asked again after "token expired" (1008), which is final
   * otherwise. A WebSocket shows it as a subprotocol if its characters allow that, else it and an
   * EventSource show it in the URL.
   */
  token?: Option<string | null | undefined>;
  /** Subprotocols for an application of your own; a WebSocket offers them before the token's. */
  protocols?: Option<string | string[] | null | undefined>;
}

export interface Connection {
  /**
   * Sends a message. Returns false if it is not connected, and always for server-sent events.
   * An empty binary message is a question to the hub and is not published.
   */
  send(data: string | ArrayBuffer | ArrayBufferView | Blob): boolean;
  /** Ends the connection and all tries. No state follows. */
  close(): void;
}

/**
 * Connects to a room and reconnects as the close code allows, with exponential backoff and jitter.
 *
 * @param url A path beside the module, as `ws/lobby`, or a URL with the scheme ws, wss, http or
 *   https. A path with `sse` in place of `ws` is heard by an EventSource. `ws?room=a&room=b` is in
 *   several rooms: each message begins with a line that names its room, also those to send. `?every=2s` is for the
 *   newest message of the room, at most so often.
 * @throws TypeError if `url` is none.
 */
export function connect(url: string | URL, options?: Options): Connection;
