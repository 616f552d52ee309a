// Types of what anywidget and our channel give to a widget's module. Only tools read this file.

/** The page's side of a widget: its synced traits. */
export interface Model<State = Record<string, any>> {
  get<K extends keyof State>(name: K): State[K];
  set<K extends keyof State>(name: K, value: State[K]): void;
  save_changes(): void;
  on(name: string, fn: (...what: any[]) => void): void;
  off(name: string, fn: (...what: any[]) => void): void;
  send(content: any, callbacks?: any, buffers?: ArrayBufferLike[]): void;
}

export interface Host {
  getWidget(reference: string): Promise<{ exports: any }>;
}

/** What a widget's `render` gets. */
export interface RenderProps<State = Record<string, any>> {
  model: Model<State>;
  el: HTMLElement;
  host: Host;
  signal: AbortSignal;
}

/** What `onChannel` and `shareViews` of shared.js give to the function that makes a view. */
export interface ViewProps<State> extends RenderProps<State> {
  channel: Channel;
}

/** What `shareViews` gives to the function that makes the object of all views. */
export interface SharedProps<State> {
  model: Model<State>;
  channel: Channel;
  /** Ends with the last view. */
  signal: AbortSignal;
  /** Draws every view. */
  draw: () => void;
}

/** Called for each message of the kernel. */
export type OnMessage = (kind: string, header: any, buffers: DataView[]) => void;

/** One widget's part of the channel. */
export interface Stream {
  /** Returns false where the way to the kernel is full: send it later, or count it as dropped. */
  send(kind: string, header: object, buffers?: (ArrayBuffer | ArrayBufferView)[]): boolean;
  /** Resolves to the kernel's reply with its `buffers` (DataViews); rejects with its error, or after `timeout_ms`. */
  request(
    kind: string,
    header: object,
    options?: { buffers?: (ArrayBuffer | ArrayBufferView)[]; timeout_ms?: number; signal?: AbortSignal },
  ): Promise<any>;
}

/** The page's connection to the kernel, shared by all widgets: `host.getWidget(model.get("channel"))`. */
export interface Channel extends EventTarget {
  openStream(name: string, onMessage: OnMessage, signal: AbortSignal): Stream;
  /** How this page reaches the kernel; an event "status" reports a change of this and of `isActivePage`. */
  kind: "direct" | "proxy" | "messages" | "none";
  /** Now on the kernel's clock, ms. */
  now(): number;
  pageId: string;
  /** Of several pages that show a notebook one may use microphone and loudspeaker. */
  isActivePage(): boolean;
  /** Become that page; rejects where the kernel does not answer. */
  claimActivePage(): Promise<void>;
}
