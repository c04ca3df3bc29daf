// node application.mjs PORT: an account is a virtual object, so Restate lets one write to it happen at a time.
//
// PostgreSQL is written to once a call. Restate may call a handler again after a crash, so the invocation's id is kept
// in the transaction of the write: a repetition changes nothing. That is one statement, and spares the journal a
// `ctx.run`, which would be synced for itself, and by itself would not keep the write from happening twice.
import * as restate from "@restatedev/restate-sdk";
import pg from "pg";

// The SDK wants a newer Node.js than Debian 12 has; this is all that it misses there.
Promise.withResolvers ??= function withResolvers() {
  let resolve, reject;
  const promise = new Promise((...settle) => ([resolve, reject] = settle));
  return { promise, resolve, reject };
};

const CREDIT = `
  WITH new AS (INSERT INTO idempotency_keys (key) VALUES (md5($1)) ON CONFLICT DO NOTHING RETURNING key)
  UPDATE accounts SET balance = balance + $2 * (SELECT count(*) FROM new),
                      version = version + (SELECT count(*) FROM new)
  WHERE id = $3 RETURNING balance, version`;

const pool = new pg.Pool({ connectionString: process.env.BENCH_DATABASE_URL, max: 16 });

const accounts = restate.object({
  name: "accounts",
  handlers: {
    credit: async (ctx, { amount }) => {
      const { rows } = await pool.query({ name: "credit", text: CREDIT, values: [ctx.request().id, amount, ctx.key] });
      return { id: Number(ctx.key), balance: Number(rows[0].balance), version: Number(rows[0].version) };
    },
  },
});

restate.endpoint().bind(accounts).listen(Number(process.argv[2]));
