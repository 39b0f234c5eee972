CREATE SCHEMA sqlbuffer;
CREATE TABLE sqlbuffer.batches (
    id bigint NOT NULL,
    buffer_id integer NOT NULL,
    worker_id text NOT NULL,
    iteration integer NOT NULL,
    size integer NOT NULL,
    clock_before double precision NOT NULL,
    clock double precision NOT NULL,
    drawn_at timestamp with time zone NOT NULL,
    settled_at timestamp with time zone,
    released_at timestamp with time zone
);
COMMENT ON COLUMN sqlbuffer.batches.id IS 'Number of the batch';
COMMENT ON COLUMN sqlbuffer.batches.buffer_id IS 'The buffer it belongs to';
COMMENT ON COLUMN sqlbuffer.batches.worker_id IS 'The worker that drew it';
COMMENT ON COLUMN sqlbuffer.batches.iteration IS 'Iteration that it was drawn for, from 0';
COMMENT ON COLUMN sqlbuffer.batches.size IS 'Samples in it';
COMMENT ON COLUMN sqlbuffer.batches.clock_before IS 'Clock of the race before the draw';
COMMENT ON COLUMN sqlbuffer.batches.clock IS 'Clock of the race after the draw';
COMMENT ON COLUMN sqlbuffer.batches.drawn_at IS 'When it was drawn (UTC)';
COMMENT ON COLUMN sqlbuffer.batches.settled_at IS 'When its rewards were stored (UTC)';
COMMENT ON COLUMN sqlbuffer.batches.released_at IS 'When its samples went back to the pool (UTC)';
CREATE TABLE sqlbuffer.buffers (
    id integer NOT NULL,
    name text NOT NULL,
    kind text NOT NULL,
    mode text NOT NULL,
    seed text NOT NULL,
    base_score double precision,
    top_weight double precision,
    score_version integer NOT NULL,
    refresh_version integer NOT NULL,
    refreshed_version integer NOT NULL,
    settings jsonb NOT NULL,
    created_at timestamp with time zone NOT NULL,
    CONSTRAINT ck_buffers_mode CHECK ((mode = ANY (ARRAY['consume'::text, 'replay'::text])))
);
COMMENT ON COLUMN sqlbuffer.buffers.id IS 'Number of the buffer';
COMMENT ON COLUMN sqlbuffer.buffers.name IS 'Name under which it is opened';
COMMENT ON COLUMN sqlbuffer.buffers.kind IS 'Name of the weight function';
COMMENT ON COLUMN sqlbuffer.buffers.mode IS 'consume: a drawn sample leaves the pool; replay: it stays';
COMMENT ON COLUMN sqlbuffer.buffers.seed IS 'Seed of the race, an integer of any size';
COMMENT ON COLUMN sqlbuffer.buffers.base_score IS 'Lowest score of the pool, from which the shift weighting counts';
COMMENT ON COLUMN sqlbuffer.buffers.top_weight IS 'Whatever waits with at least this weight is marked as top; NULL: nothing is';
COMMENT ON COLUMN sqlbuffer.buffers.score_version IS 'Version that the next scores get';
COMMENT ON COLUMN sqlbuffer.buffers.refresh_version IS 'Score version that the newest refresh asked for';
COMMENT ON COLUMN sqlbuffer.buffers.refreshed_version IS 'Score version that the newest finished refresh gave';
COMMENT ON COLUMN sqlbuffer.buffers.settings IS 'Parameters of the weight function, and what else shapes draws';
COMMENT ON COLUMN sqlbuffer.buffers.created_at IS 'When it was created (UTC)';
CREATE TABLE sqlbuffer.draws (
    batch_id bigint NOT NULL,
    "position" integer NOT NULL,
    sample_id bigint NOT NULL,
    race_key double precision NOT NULL,
    weight double precision,
    reported boolean DEFAULT false NOT NULL
);
COMMENT ON COLUMN sqlbuffer.draws.batch_id IS 'The batch';
COMMENT ON COLUMN sqlbuffer.draws."position" IS 'Place in the batch, from 0';
COMMENT ON COLUMN sqlbuffer.draws.sample_id IS 'The sample drawn';
COMMENT ON COLUMN sqlbuffer.draws.race_key IS 'Its race key when it was drawn';
COMMENT ON COLUMN sqlbuffer.draws.weight IS 'Its weight when it was drawn';
COMMENT ON COLUMN sqlbuffer.draws.reported IS 'True when its reward came before the batch was closed';
CREATE TABLE sqlbuffer.samples (
    id bigint NOT NULL,
    buffer_id integer NOT NULL,
    hash bytea NOT NULL,
    text text NOT NULL,
    payload bytea,
    codec text NOT NULL,
    source text NOT NULL,
    meta jsonb,
    queued boolean NOT NULL,
    requeues integer NOT NULL,
    score double precision,
    score_version integer,
    scored_at timestamp with time zone,
    reward double precision,
    rewarded_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    created_iteration integer NOT NULL
);
COMMENT ON COLUMN sqlbuffer.samples.id IS 'Number of the sample';
COMMENT ON COLUMN sqlbuffer.samples.buffer_id IS 'The buffer it belongs to';
COMMENT ON COLUMN sqlbuffer.samples.hash IS 'Canonical hash, 16 bytes: equal samples have equal hashes';
COMMENT ON COLUMN sqlbuffer.samples.text IS 'The sample, or a readable rendering of it';
COMMENT ON COLUMN sqlbuffer.samples.payload IS 'The encoded sample; NULL when text is the whole sample';
COMMENT ON COLUMN sqlbuffer.samples.codec IS 'How payload is encoded: text, cbor or pickle';
COMMENT ON COLUMN sqlbuffer.samples.source IS 'Name of the generator that added it first';
COMMENT ON COLUMN sqlbuffer.samples.meta IS 'What the user said about it';
COMMENT ON COLUMN sqlbuffer.samples.queued IS 'True while it waits in the pool or in an open batch';
COMMENT ON COLUMN sqlbuffer.samples.requeues IS 'How often it was added again after it had left the pool';
COMMENT ON COLUMN sqlbuffer.samples.score IS 'Cached prediction; NULL when not scored, or when the prediction was not finite';
COMMENT ON COLUMN sqlbuffer.samples.score_version IS 'Version of the score; NULL when not scored';
COMMENT ON COLUMN sqlbuffer.samples.scored_at IS 'When it was scored (UTC)';
COMMENT ON COLUMN sqlbuffer.samples.reward IS 'Measured reward; NULL when not measured, or when the measurement failed';
COMMENT ON COLUMN sqlbuffer.samples.rewarded_at IS 'When the reward was stored (UTC)';
COMMENT ON COLUMN sqlbuffer.samples.created_at IS 'When it was first stored (UTC)';
COMMENT ON COLUMN sqlbuffer.samples.created_iteration IS 'Iteration of the buffer when it was first stored';
CREATE VIEW sqlbuffer.batch_overview AS
 SELECT b.name AS buffer,
    t.id,
    t.iteration,
    t.size,
        CASE
            WHEN (t.settled_at IS NOT NULL) THEN 'settled'::text
            WHEN (t.released_at IS NOT NULL) THEN 'released'::text
            ELSE 'open'::text
        END AS state,
    ( SELECT avg(s.reward) AS avg
           FROM (sqlbuffer.draws d
             JOIN sqlbuffer.samples s ON ((s.id = d.sample_id)))
          WHERE (d.batch_id = t.id)) AS mean_reward,
    t.worker_id,
    t.drawn_at,
    t.settled_at,
    t.released_at
   FROM (sqlbuffer.batches t
     JOIN sqlbuffer.buffers b ON ((b.id = t.buffer_id)));
CREATE SEQUENCE sqlbuffer.batches_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE sqlbuffer.batches_id_seq OWNED BY sqlbuffer.batches.id;
CREATE TABLE sqlbuffer.workers (
    buffer_id integer NOT NULL,
    id text NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    process_started_at double precision NOT NULL,
    created_at timestamp with time zone NOT NULL,
    heartbeat_at timestamp with time zone NOT NULL,
    clock double precision NOT NULL,
    batches integer NOT NULL,
    iterations integer NOT NULL,
    added bigint NOT NULL,
    recorded bigint NOT NULL,
    requeued bigint NOT NULL,
    drawn bigint NOT NULL,
    settled bigint NOT NULL,
    released bigint NOT NULL,
    removed bigint NOT NULL,
    refused bigint NOT NULL,
    unscored bigint NOT NULL,
    unscorable bigint NOT NULL,
    measured bigint NOT NULL,
    failed bigint NOT NULL
);
COMMENT ON COLUMN sqlbuffer.workers.buffer_id IS 'The buffer it belongs to';
COMMENT ON COLUMN sqlbuffer.workers.id IS 'Host, pid and random letters; ''ledger'' sums up those that are gone';
COMMENT ON COLUMN sqlbuffer.workers.host IS 'Host, boot and pid namespace in which the pid is unique';
COMMENT ON COLUMN sqlbuffer.workers.pid IS 'Process number';
COMMENT ON COLUMN sqlbuffer.workers.process_started_at IS 'When the process started, seconds since 1970';
COMMENT ON COLUMN sqlbuffer.workers.created_at IS 'When it attached (UTC)';
COMMENT ON COLUMN sqlbuffer.workers.heartbeat_at IS 'When it was last seen alive (UTC)';
COMMENT ON COLUMN sqlbuffer.workers.clock IS 'Largest race key it has drawn';
COMMENT ON COLUMN sqlbuffer.workers.batches IS 'Batches drawn by this worker, those released taken off';
COMMENT ON COLUMN sqlbuffer.workers.iterations IS 'Batches settled as iterations of a loop by this worker';
COMMENT ON COLUMN sqlbuffer.workers.added IS 'Samples stored for the first time by this worker';
COMMENT ON COLUMN sqlbuffer.workers.recorded IS 'Samples stored with a reward, without waiting, by this worker';
COMMENT ON COLUMN sqlbuffer.workers.requeued IS 'Samples put into the pool again by this worker';
COMMENT ON COLUMN sqlbuffer.workers.drawn IS 'Draws made by this worker';
COMMENT ON COLUMN sqlbuffer.workers.settled IS 'Draws settled by this worker';
COMMENT ON COLUMN sqlbuffer.workers.released IS 'Draws given back by this worker';
COMMENT ON COLUMN sqlbuffer.workers.removed IS 'Samples taken out of the pool without a draw by this worker';
COMMENT ON COLUMN sqlbuffer.workers.refused IS 'Samples without a key refused by this worker';
COMMENT ON COLUMN sqlbuffer.workers.unscored IS 'Change in waiting samples without a score by this worker';
COMMENT ON COLUMN sqlbuffer.workers.unscorable IS 'Change in waiting samples of weight 0 by this worker';
COMMENT ON COLUMN sqlbuffer.workers.measured IS 'Change in samples that have a reward by this worker';
COMMENT ON COLUMN sqlbuffer.workers.failed IS 'Change in samples whose measurement failed by this worker';
CREATE VIEW sqlbuffer.buffer_overview AS
 SELECT b.name AS buffer,
    b.kind,
    b.mode,
    sum(w.iterations) AS iteration,
    sum((((w.added + w.requeued) - w.removed) -
        CASE b.mode
            WHEN 'consume'::text THEN (w.drawn - w.released)
            ELSE (0)::bigint
        END)) AS waiting,
    sum(w.unscored) AS unscored,
    sum(w.unscorable) AS unscorable,
    sum((w.added + w.recorded)) AS stored,
    sum(((w.drawn - w.released) - w.settled)) AS claimed,
    sum(w.measured) AS measured,
    sum(w.failed) AS failed,
    ( SELECT max(s.reward) AS max
           FROM sqlbuffer.samples s
          WHERE ((s.buffer_id = b.id) AND (s.reward IS NOT NULL))) AS best_reward,
    b.score_version,
    b.created_at,
    max(w.heartbeat_at) AS seen_at
   FROM (sqlbuffer.buffers b
     LEFT JOIN sqlbuffer.workers w ON ((w.buffer_id = b.id)))
  GROUP BY b.id, b.name, b.kind, b.mode, b.score_version, b.created_at;
CREATE SEQUENCE sqlbuffer.buffers_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE sqlbuffer.buffers_id_seq OWNED BY sqlbuffer.buffers.id;
CREATE TABLE sqlbuffer.checkpoints (
    buffer_id integer NOT NULL,
    name text NOT NULL,
    iteration integer NOT NULL,
    data bytea NOT NULL,
    created_at timestamp with time zone NOT NULL
);
COMMENT ON COLUMN sqlbuffer.checkpoints.buffer_id IS 'The buffer it belongs to';
COMMENT ON COLUMN sqlbuffer.checkpoints.name IS 'What it is a checkpoint of';
COMMENT ON COLUMN sqlbuffer.checkpoints.iteration IS 'Batches settled when it was written';
COMMENT ON COLUMN sqlbuffer.checkpoints.data IS 'The state';
COMMENT ON COLUMN sqlbuffer.checkpoints.created_at IS 'When it was written (UTC)';
CREATE VIEW sqlbuffer.draw_overview AS
 SELECT b.name AS buffer,
    t.iteration,
    t.id AS batch_id,
    d."position",
    d.sample_id,
    s.text,
    s.source,
    d.weight,
    s.score,
    s.reward,
    t.drawn_at
   FROM (((sqlbuffer.draws d
     JOIN sqlbuffer.batches t ON ((t.id = d.batch_id)))
     JOIN sqlbuffer.buffers b ON ((b.id = t.buffer_id)))
     JOIN sqlbuffer.samples s ON ((s.id = d.sample_id)));
CREATE TABLE sqlbuffer.jobs (
    buffer_id integer NOT NULL,
    name text NOT NULL,
    owner text,
    lease_until timestamp with time zone,
    last_started_at timestamp with time zone,
    last_finished_at timestamp with time zone,
    last_error text
);
COMMENT ON COLUMN sqlbuffer.jobs.buffer_id IS 'The buffer it belongs to';
COMMENT ON COLUMN sqlbuffer.jobs.name IS 'Name of the job';
COMMENT ON COLUMN sqlbuffer.jobs.owner IS 'The worker that runs it; NULL when nobody does';
COMMENT ON COLUMN sqlbuffer.jobs.lease_until IS 'Until when the owner has it (UTC)';
COMMENT ON COLUMN sqlbuffer.jobs.last_started_at IS 'When it last started (UTC)';
COMMENT ON COLUMN sqlbuffer.jobs.last_finished_at IS 'When it last finished (UTC)';
COMMENT ON COLUMN sqlbuffer.jobs.last_error IS 'What went wrong the last time; NULL when nothing did';
CREATE TABLE sqlbuffer.metrics (
    buffer_id integer NOT NULL,
    iteration integer NOT NULL,
    name text NOT NULL,
    value double precision,
    recorded_at timestamp with time zone NOT NULL
);
COMMENT ON COLUMN sqlbuffer.metrics.buffer_id IS 'The buffer it belongs to';
COMMENT ON COLUMN sqlbuffer.metrics.iteration IS 'Iteration that it measures, from 0';
COMMENT ON COLUMN sqlbuffer.metrics.name IS 'Name of the metric';
COMMENT ON COLUMN sqlbuffer.metrics.value IS 'Its value; NULL when not a number';
COMMENT ON COLUMN sqlbuffer.metrics.recorded_at IS 'When it was recorded (UTC)';
CREATE TABLE sqlbuffer.pool (
    buffer_id integer NOT NULL,
    race_key double precision NOT NULL,
    sample_id bigint NOT NULL,
    weight double precision,
    top boolean NOT NULL
);
COMMENT ON COLUMN sqlbuffer.pool.buffer_id IS 'The buffer it belongs to';
COMMENT ON COLUMN sqlbuffer.pool.race_key IS 'Arrival time in the race; +infinity: never drawn';
COMMENT ON COLUMN sqlbuffer.pool.sample_id IS 'The waiting sample';
COMMENT ON COLUMN sqlbuffer.pool.weight IS 'Rate at which it is drawn; NULL when not scored, 0 when never to be drawn';
COMMENT ON COLUMN sqlbuffer.pool.top IS 'True for the heaviest, from which the argmax share is taken';
CREATE TABLE sqlbuffer.predictors (
    buffer_id integer NOT NULL,
    version integer NOT NULL,
    iteration integer NOT NULL,
    state bytea NOT NULL,
    rows_trained integer NOT NULL,
    train_loss double precision,
    valid_loss double precision,
    metrics jsonb NOT NULL,
    trained_at timestamp with time zone NOT NULL,
    worker_id text NOT NULL
);
COMMENT ON COLUMN sqlbuffer.predictors.buffer_id IS 'The buffer it belongs to';
COMMENT ON COLUMN sqlbuffer.predictors.version IS 'Score version from which it is in force';
COMMENT ON COLUMN sqlbuffer.predictors.iteration IS 'Batches settled when it was trained';
COMMENT ON COLUMN sqlbuffer.predictors.state IS 'Its weights, as safetensors';
COMMENT ON COLUMN sqlbuffer.predictors.rows_trained IS 'Labelled samples it was trained on';
COMMENT ON COLUMN sqlbuffer.predictors.train_loss IS 'Loss on the training rows';
COMMENT ON COLUMN sqlbuffer.predictors.valid_loss IS 'Loss on the held-out rows';
COMMENT ON COLUMN sqlbuffer.predictors.metrics IS 'Other measures of its training';
COMMENT ON COLUMN sqlbuffer.predictors.trained_at IS 'When it was stored (UTC)';
COMMENT ON COLUMN sqlbuffer.predictors.worker_id IS 'The worker that trained it';
CREATE TABLE sqlbuffer.receipts (
    connection text NOT NULL,
    number bigint NOT NULL,
    written_at timestamp with time zone NOT NULL
);
COMMENT ON COLUMN sqlbuffer.receipts.connection IS 'Random name of a connection to a server; none on SQLite';
COMMENT ON COLUMN sqlbuffer.receipts.number IS 'Number of the last transaction that it committed';
COMMENT ON COLUMN sqlbuffer.receipts.written_at IS 'When that was (UTC)';
CREATE VIEW sqlbuffer.sample_overview AS
 SELECT b.name AS buffer,
    s.id,
    s.text,
    s.source,
    s.queued,
    s.score,
    ( SELECT max(p.version) AS max
           FROM sqlbuffer.predictors p
          WHERE ((p.buffer_id = s.buffer_id) AND (p.version <= s.score_version))) AS predictor,
    s.reward,
    s.created_iteration,
    s.created_at,
    s.scored_at,
    s.rewarded_at
   FROM (sqlbuffer.samples s
     JOIN sqlbuffer.buffers b ON ((b.id = s.buffer_id)));
CREATE SEQUENCE sqlbuffer.samples_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE sqlbuffer.samples_id_seq OWNED BY sqlbuffer.samples.id;
CREATE TABLE sqlbuffer.sqlbuffer_version (
    version_num character varying(32) NOT NULL
);
ALTER TABLE ONLY sqlbuffer.batches ALTER COLUMN id SET DEFAULT nextval('sqlbuffer.batches_id_seq'::regclass);
ALTER TABLE ONLY sqlbuffer.buffers ALTER COLUMN id SET DEFAULT nextval('sqlbuffer.buffers_id_seq'::regclass);
ALTER TABLE ONLY sqlbuffer.samples ALTER COLUMN id SET DEFAULT nextval('sqlbuffer.samples_id_seq'::regclass);
INSERT INTO sqlbuffer.batches VALUES (1, 1, 'vm-4612-2164bc4d', 0, 5, 0, 0.019795003815535426, '2026-11-28 06:25:43.264271+00', '2026-11-28 06:25:43.27267+00', NULL);
INSERT INTO sqlbuffer.batches VALUES (2, 1, 'vm-4612-2164bc4d', 1, 4, 0.019795003815535426, 0.04916414239962893, '2026-11-28 06:25:43.312961+00', NULL, NULL);
INSERT INTO sqlbuffer.buffers VALUES (1, 'old', 'shift', 'consume', '7', 0, 0, 1, 0, 0, '{"weighting": {"name": "shift"}}', '2026-11-28 06:25:43.16185+00');
INSERT INTO sqlbuffer.checkpoints VALUES (1, 'loop', 1, '\x7b2273697a65223a2031387d', '2026-11-28 06:25:43.283968+00');
INSERT INTO sqlbuffer.draws VALUES (1, 0, 3, 0.006216739492716962, 19.00000001, false);
INSERT INTO sqlbuffer.draws VALUES (1, 1, 19, 0.007242254122532449, 6.00000001, false);
INSERT INTO sqlbuffer.draws VALUES (1, 2, 11, 0.00934750863721454, 7.00000001, false);
INSERT INTO sqlbuffer.draws VALUES (1, 3, 2, 0.014216243001113238, 16.00000001, false);
INSERT INTO sqlbuffer.draws VALUES (1, 4, 22, 0.019795003815535426, 5.00000001, false);
INSERT INTO sqlbuffer.draws VALUES (2, 0, 13, 0.02566299594657884, 4.00000001, false);
INSERT INTO sqlbuffer.draws VALUES (2, 1, 23, 0.028543849267153167, 5.00000001, false);
INSERT INTO sqlbuffer.draws VALUES (2, 2, 21, 0.02889917628367577, 5.00000001, false);
INSERT INTO sqlbuffer.draws VALUES (2, 3, 1, 0.04916414239962893, 10.00000001, false);
INSERT INTO sqlbuffer.metrics VALUES (1, 0, 'loss', 0.5, '2026-11-28 06:25:43.28054+00');
INSERT INTO sqlbuffer.pool VALUES (1, 0.06143839359214278, 16, 15.00000001, true);
INSERT INTO sqlbuffer.pool VALUES (1, 0.07646828628012578, 20, 9.00000001, true);
INSERT INTO sqlbuffer.pool VALUES (1, 0.08674563689813272, 5, 12.00000001, true);
INSERT INTO sqlbuffer.pool VALUES (1, 0.09140799149167717, 9, 17.00000001, true);
INSERT INTO sqlbuffer.pool VALUES (1, 0.11319299612532661, 17, 11.00000001, true);
INSERT INTO sqlbuffer.pool VALUES (1, 0.11736813368338125, 15, 18.00000001, true);
INSERT INTO sqlbuffer.pool VALUES (1, 0.12195592839196283, 18, 13.00000001, true);
INSERT INTO sqlbuffer.pool VALUES (1, 0.15658061753593205, 14, 8.00000001, true);
INSERT INTO sqlbuffer.pool VALUES (1, 0.1799713729635071, 6, 14.00000001, true);
INSERT INTO sqlbuffer.pool VALUES (1, 0.2171464816667237, 7, 5.00000001, true);
INSERT INTO sqlbuffer.pool VALUES (1, 0.3128802319950971, 10, 2.00000001, true);
INSERT INTO sqlbuffer.pool VALUES (1, 0.3657325269194808, 4, 3.00000001, true);
INSERT INTO sqlbuffer.pool VALUES (1, 0.4591637908476629, 8, 1.00000001, true);
INSERT INTO sqlbuffer.pool VALUES (1, 45342273.304737695, 12, 1e-08, true);
INSERT INTO sqlbuffer.predictors VALUES (1, 1, 1, '\x78000000000000007b2262696173223a7b226474797065223a22463332222c227368617065223a5b315d2c22646174615f6f666673657473223a5b302c345d7d2c22776569676874223a7b226474797065223a22463332222c227368617065223a5b312c315d2c22646174615f6f666673657473223a5b342c385d7d7d2020205e54093f0054f5bb', 4, 0.25, 0.5, '{"valid_rank_correlation": 0.75}', '2026-11-28 06:25:43.294468+00', 'vm-4612-2164bc4d');
INSERT INTO sqlbuffer.receipts VALUES ('85169c28d5024fd1', 12, '2026-11-28 06:25:43.307443+00');
INSERT INTO sqlbuffer.samples VALUES (1, 1, '\x0cdc385320e1e5fb5d1bdc79e596aff1', 's10', NULL, 'text', 'textbook', NULL, true, 0, 10, 0, '2026-11-28 06:25:43.232864+00', NULL, NULL, '2026-11-28 06:25:43.185871+00', 0);
INSERT INTO sqlbuffer.samples VALUES (4, 1, '\x25e68adcf845946f3908b9639ff35294', 's3', NULL, 'text', 'textbook', NULL, true, 0, 3, 0, '2026-11-28 06:25:43.232893+00', NULL, NULL, '2026-11-28 06:25:43.186562+00', 0);
INSERT INTO sqlbuffer.samples VALUES (5, 1, '\x2660151e0dfb090dc810a2884800e972', 's12', NULL, 'text', 'textbook', NULL, true, 0, 12, 0, '2026-11-28 06:25:43.232895+00', NULL, NULL, '2026-11-28 06:25:43.186568+00', 0);
INSERT INTO sqlbuffer.samples VALUES (6, 1, '\x48357fba8f1544bb1c6c3ff9c5e320e8', 's14', NULL, 'text', 'textbook', NULL, true, 0, 14, 0, '2026-11-28 06:25:43.232897+00', NULL, NULL, '2026-11-28 06:25:43.186574+00', 0);
INSERT INTO sqlbuffer.samples VALUES (7, 1, '\x4b0f27f800694018de4214d24749adfc', 's5', NULL, 'text', 'textbook', NULL, true, 0, 5, 0, '2026-11-28 06:25:43.232899+00', NULL, NULL, '2026-11-28 06:25:43.186581+00', 0);
INSERT INTO sqlbuffer.samples VALUES (8, 1, '\x4fbcf5a9dc27fda64879229052501555', 's1', NULL, 'text', 'textbook', NULL, true, 0, 1, 0, '2026-11-28 06:25:43.2329+00', NULL, NULL, '2026-11-28 06:25:43.186587+00', 0);
INSERT INTO sqlbuffer.samples VALUES (9, 1, '\x5e98966e95d3a2c83eea44277f58ff86', 's17', NULL, 'text', 'textbook', NULL, true, 0, 17, 0, '2026-11-28 06:25:43.232902+00', NULL, NULL, '2026-11-28 06:25:43.186592+00', 0);
INSERT INTO sqlbuffer.samples VALUES (10, 1, '\x5f25bc4303e12b7ed3b7884e98547027', 's2', NULL, 'text', 'textbook', NULL, true, 0, 2, 0, '2026-11-28 06:25:43.232904+00', NULL, NULL, '2026-11-28 06:25:43.186598+00', 0);
INSERT INTO sqlbuffer.samples VALUES (12, 1, '\x79639c3f2c6365c8aa75dcd714b7be09', 's0', NULL, 'text', 'textbook', NULL, true, 0, 0, 0, '2026-11-28 06:25:43.232908+00', NULL, NULL, '2026-11-28 06:25:43.186609+00', 0);
INSERT INTO sqlbuffer.samples VALUES (13, 1, '\x7bebade95985177df635128fecd99363', 's4', NULL, 'text', 'textbook', NULL, true, 0, 4, 0, '2026-11-28 06:25:43.23291+00', NULL, NULL, '2026-11-28 06:25:43.186614+00', 0);
INSERT INTO sqlbuffer.samples VALUES (14, 1, '\x7e8cd06cb6f980a295160840a24aea8e', 's8', NULL, 'text', 'textbook', NULL, true, 0, 8, 0, '2026-11-28 06:25:43.232912+00', NULL, NULL, '2026-11-28 06:25:43.186621+00', 0);
INSERT INTO sqlbuffer.samples VALUES (15, 1, '\x81be9c2241ccfeb9791ff211d82c02b6', 's18', NULL, 'text', 'textbook', NULL, true, 0, 18, 0, '2026-11-28 06:25:43.232914+00', NULL, NULL, '2026-11-28 06:25:43.186627+00', 0);
INSERT INTO sqlbuffer.samples VALUES (16, 1, '\x8ce36007e27bc067505b1a0bd347d050', 's15', NULL, 'text', 'textbook', NULL, true, 0, 15, 0, '2026-11-28 06:25:43.232916+00', NULL, NULL, '2026-11-28 06:25:43.186632+00', 0);
INSERT INTO sqlbuffer.samples VALUES (17, 1, '\x952d06c5a93a3880908ed23dfc8e3165', 's11', NULL, 'text', 'textbook', NULL, true, 0, 11, 0, '2026-11-28 06:25:43.232917+00', NULL, NULL, '2026-11-28 06:25:43.186638+00', 0);
INSERT INTO sqlbuffer.samples VALUES (18, 1, '\x9a56624baf043897f4cea2034993e70b', 's13', NULL, 'text', 'textbook', NULL, true, 0, 13, 0, '2026-11-28 06:25:43.232919+00', NULL, NULL, '2026-11-28 06:25:43.186644+00', 0);
INSERT INTO sqlbuffer.samples VALUES (20, 1, '\xffdfee9e483e0d8111dca2537ac662a8', 's9', NULL, 'text', 'textbook', NULL, true, 0, 9, 0, '2026-11-28 06:25:43.232923+00', NULL, NULL, '2026-11-28 06:25:43.186655+00', 0);
INSERT INTO sqlbuffer.samples VALUES (21, 1, '\x05fc3d100167ed75600ce7bb0809aa4e', '(1, 2)', '\xd81b83657475706c650102', 'cbor', 'arrays', '{"note": "mixed"}', true, 0, 5, 0, '2026-11-28 06:25:43.232925+00', NULL, NULL, '2026-11-28 06:25:43.203719+00', 0);
INSERT INTO sqlbuffer.samples VALUES (23, 1, '\xb62723d2f3a4251c3ba000b767b3123f', 'ndarray(float64, (3,): 0 1 2)', '\xd81b8465617272617967666c6f61743634810358180000000000000000000000000000f03f0000000000000040', 'cbor', 'arrays', '{"note": "mixed"}', true, 0, 5, 0, '2026-11-28 06:25:43.232929+00', NULL, NULL, '2026-11-28 06:25:43.203844+00', 0);
INSERT INTO sqlbuffer.samples VALUES (2, 1, '\x0d8360399ce27ce9c89e1a9c8e4a1819', 's16', NULL, 'text', 'textbook', NULL, false, 0, 16, 0, '2026-11-28 06:25:43.232888+00', 4, '2026-11-28 06:25:43.276495+00', '2026-11-28 06:25:43.186535+00', 0);
INSERT INTO sqlbuffer.samples VALUES (3, 1, '\x0eb87c9deb49f479da7910f23aa95fbb', 's19', NULL, 'text', 'textbook', NULL, false, 0, 19, 0, '2026-11-28 06:25:43.232891+00', 1, '2026-11-28 06:25:43.276672+00', '2026-11-28 06:25:43.186554+00', 0);
INSERT INTO sqlbuffer.samples VALUES (11, 1, '\x77465f5140d1083ba59ed409f0a25ba1', 's7', NULL, 'text', 'textbook', NULL, false, 0, 7, 0, '2026-11-28 06:25:43.232906+00', NULL, '2026-11-28 06:25:43.276684+00', '2026-11-28 06:25:43.186603+00', 0);
INSERT INTO sqlbuffer.samples VALUES (19, 1, '\xe06da5c74348259f6cc22c4b7eebcc0d', 's6', NULL, 'text', 'textbook', NULL, false, 0, 6, 0, '2026-11-28 06:25:43.232921+00', 2, '2026-11-28 06:25:43.276689+00', '2026-11-28 06:25:43.186649+00', 0);
INSERT INTO sqlbuffer.samples VALUES (22, 1, '\x42307d740a6b445525cfa94acb248003', 'Tensor(float32, (1,): 1.5)', '\xd81b846674656e736f7267666c6f617433328101440000c03f', 'cbor', 'arrays', '{"note": "mixed"}', false, 0, 5, 0, '2026-11-28 06:25:43.232927+00', 5, '2026-11-28 06:25:43.276696+00', '2026-11-28 06:25:43.20383+00', 0);
INSERT INTO sqlbuffer.samples VALUES (24, 1, '\xf857a49cfcdda70881a7b1ed0df6df55', 's100', NULL, 'text', 'literature', NULL, false, 0, NULL, NULL, NULL, 9, '2026-11-28 06:25:43.30474+00', '2026-11-28 06:25:43.300906+00', 1);
INSERT INTO sqlbuffer.sqlbuffer_version VALUES ('0001');
INSERT INTO sqlbuffer.workers VALUES (1, 'ledger', '', 0, 0, '2026-11-28 06:25:43.164506+00', '2026-11-28 06:25:43.164506+00', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
INSERT INTO sqlbuffer.workers VALUES (1, 'vm-4612-2164bc4d', 'vm/a6d8388b', 4612, 1795847137.05, '2026-11-28 06:25:43.194124+00', '2026-11-28 06:25:43.314731+00', 0.04916414239962893, 2, 1, 23, 1, 0, 9, 5, 0, 0, 0, 0, 0, 5, 1);
SELECT pg_catalog.setval('sqlbuffer.batches_id_seq', 2, true);
SELECT pg_catalog.setval('sqlbuffer.buffers_id_seq', 1, true);
SELECT pg_catalog.setval('sqlbuffer.samples_id_seq', 24, true);
ALTER TABLE ONLY sqlbuffer.batches
    ADD CONSTRAINT batches_pkey PRIMARY KEY (id);
ALTER TABLE ONLY sqlbuffer.buffers
    ADD CONSTRAINT buffers_pkey PRIMARY KEY (id);
ALTER TABLE ONLY sqlbuffer.checkpoints
    ADD CONSTRAINT checkpoints_pkey PRIMARY KEY (buffer_id, name, iteration);
ALTER TABLE ONLY sqlbuffer.draws
    ADD CONSTRAINT draws_pkey PRIMARY KEY (batch_id, "position");
ALTER TABLE ONLY sqlbuffer.jobs
    ADD CONSTRAINT jobs_pkey PRIMARY KEY (buffer_id, name);
ALTER TABLE ONLY sqlbuffer.metrics
    ADD CONSTRAINT metrics_pkey PRIMARY KEY (buffer_id, iteration, name);
ALTER TABLE ONLY sqlbuffer.pool
    ADD CONSTRAINT pool_pkey PRIMARY KEY (buffer_id, race_key, sample_id);
ALTER TABLE ONLY sqlbuffer.predictors
    ADD CONSTRAINT predictors_pkey PRIMARY KEY (buffer_id, version);
ALTER TABLE ONLY sqlbuffer.receipts
    ADD CONSTRAINT receipts_pkey PRIMARY KEY (connection);
ALTER TABLE ONLY sqlbuffer.samples
    ADD CONSTRAINT samples_pkey PRIMARY KEY (id);
ALTER TABLE ONLY sqlbuffer.sqlbuffer_version
    ADD CONSTRAINT sqlbuffer_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY sqlbuffer.buffers
    ADD CONSTRAINT uq_buffers_name UNIQUE (name);
ALTER TABLE ONLY sqlbuffer.samples
    ADD CONSTRAINT uq_samples_buffer_id_hash UNIQUE (buffer_id, hash);
ALTER TABLE ONLY sqlbuffer.workers
    ADD CONSTRAINT workers_pkey PRIMARY KEY (buffer_id, id);
CREATE INDEX ix_batches_iteration ON sqlbuffer.batches USING btree (buffer_id, iteration);
CREATE INDEX ix_batches_open ON sqlbuffer.batches USING btree (buffer_id, worker_id) WHERE ((settled_at IS NULL) AND (released_at IS NULL));
CREATE INDEX ix_pool_top ON sqlbuffer.pool USING btree (buffer_id, weight, sample_id) WHERE (top = true);
CREATE INDEX ix_pool_unscored ON sqlbuffer.pool USING btree (buffer_id, sample_id) WHERE (weight IS NULL);
CREATE INDEX ix_samples_reward ON sqlbuffer.samples USING btree (buffer_id, reward, id) WHERE (reward IS NOT NULL);
ALTER TABLE ONLY sqlbuffer.checkpoints
    ADD CONSTRAINT fk_checkpoints_buffer_id FOREIGN KEY (buffer_id) REFERENCES sqlbuffer.buffers(id);
ALTER TABLE ONLY sqlbuffer.jobs
    ADD CONSTRAINT fk_jobs_buffer_id FOREIGN KEY (buffer_id) REFERENCES sqlbuffer.buffers(id);
ALTER TABLE ONLY sqlbuffer.metrics
    ADD CONSTRAINT fk_metrics_buffer_id FOREIGN KEY (buffer_id) REFERENCES sqlbuffer.buffers(id);
ALTER TABLE ONLY sqlbuffer.predictors
    ADD CONSTRAINT fk_predictors_buffer_id FOREIGN KEY (buffer_id) REFERENCES sqlbuffer.buffers(id);
ALTER TABLE ONLY sqlbuffer.workers
    ADD CONSTRAINT fk_workers_buffer_id FOREIGN KEY (buffer_id) REFERENCES sqlbuffer.buffers(id);
