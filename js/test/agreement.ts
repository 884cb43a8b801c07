// The hand-written ibfast.d.ts against the code: this compiles only while names and signatures are the same.

import type * as declared from "../ibfast.js";
import { Client, connect } from "../src/client/client.js";
import { backoffMs } from "../src/client/reconnection.js";
import { Subscription } from "../src/client/subscription.js";
import { Bits } from "../src/codec/bits.js";
import { FrameDecoder } from "../src/codec/frame_decoder.js";
import { Kind } from "../src/codec/spec.js";
import { ProtocolError, StreamError } from "../src/errors.js";

const written = { Bits, Client, FrameDecoder, Kind, ProtocolError, StreamError, Subscription, backoffMs, connect };

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;

/** Public members with their types. What is read-only to users is not so to the class itself. */
type Members<Class extends { prototype: object }, Hidden = never> = {
  -readonly [Name in keyof Class["prototype"] as Name extends Hidden ? never : Name]: Class["prototype"][Name];
};

/** Names whose types differ. */
type Differing<A, B> = {
  [Name in keyof A | keyof B]: Name extends keyof A & keyof B
    ? Same<A[Name], B[Name]> extends true
      ? never
      : Name
    : Name;
}[keyof A | keyof B];

function agree<_Names extends never>(): void {}

agree<Differing<Record<keyof typeof declared, 0>, Record<keyof typeof written, 0>>>();
agree<
  Differing<
    Pick<typeof declared, "Kind" | "backoffMs" | "connect">,
    Pick<typeof written, "Kind" | "backoffMs" | "connect">
  >
>();
agree<Differing<Members<typeof declared.Client>, Members<typeof Client>>>();
agree<Differing<Members<typeof declared.Subscription>, Members<typeof Subscription>>>();
agree<Differing<Members<typeof declared.FrameDecoder>, Members<typeof FrameDecoder>>>();
// `double` fills a Place, which is of the decoder alone.
agree<Differing<Members<typeof declared.Bits>, Members<typeof Bits, "double">>>();
agree<Differing<Members<typeof declared.ProtocolError>, Members<typeof ProtocolError>>>();
agree<Differing<Members<typeof declared.StreamError>, Members<typeof StreamError>>>();

/** Parameters of the constructors that users may call. */
type Made<
  Module extends Record<"Bits" | "FrameDecoder" | "ProtocolError" | "StreamError", new (...values: never[]) => object>,
> = {
  [Name in "Bits" | "FrameDecoder" | "ProtocolError" | "StreamError"]: ConstructorParameters<Module[Name]>;
};

agree<Differing<Made<typeof declared>, Made<typeof written>>>();
