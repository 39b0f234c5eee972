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
    released_at timestamp with time zone,
    drawn_tick bigint,
    closed_tick bigint,
    counts_attempts boolean DEFAULT false NOT NULL,
    lease_until timestamp with time zone,
    token text,
    n_argmax integer
);
COMMENT ON TABLE sqlbuffer.batches IS 'One row for each claim of samples by one worker';
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
COMMENT ON COLUMN sqlbuffer.batches.drawn_tick IS 'Logical time when it was drawn; NULL: by an older release';
COMMENT ON COLUMN sqlbuffer.batches.closed_tick IS 'Logical time when it was settled or released';
COMMENT ON COLUMN sqlbuffer.batches.counts_attempts IS 'True if the death of its worker is an attempt at each sample that was started';
COMMENT ON COLUMN sqlbuffer.batches.lease_until IS 'Until when it stays claimed without its worker (UTC); NULL: while that lives';
COMMENT ON COLUMN sqlbuffer.batches.token IS 'Token with which another process takes it up';
COMMENT ON COLUMN sqlbuffer.batches.n_argmax IS 'Samples of its argmax share, which come first; NULL: by an older release';
CREATE TABLE sqlbuffer.buffers (
    id integer NOT NULL,
    name text NOT NULL,
    kind text NOT NULL,
    mode text NOT NULL,
    seed text NOT NULL,
    base_score double precision,
    score_version integer NOT NULL,
    refresh_version integer NOT NULL,
    refreshed_version integer NOT NULL,
    settings jsonb NOT NULL,
    created_at timestamp with time zone NOT NULL,
    key text,
    top_score double precision,
    max_size bigint,
    epoch bigint DEFAULT 0 NOT NULL,
    direction text DEFAULT 'maximize'::text NOT NULL,
    objective text DEFAULT 'reward'::text NOT NULL,
    budget bigint,
    max_attempts integer DEFAULT 3,
    evict text DEFAULT 'lightest'::text NOT NULL,
    keep_key boolean DEFAULT false NOT NULL,
    pruned_batch bigint,
    CONSTRAINT ck_buffers_mode CHECK ((mode = ANY (ARRAY['consume'::text, 'replay'::text])))
);
COMMENT ON TABLE sqlbuffer.buffers IS 'One row for each buffer, with its settings';
COMMENT ON COLUMN sqlbuffer.buffers.id IS 'Number of the buffer';
COMMENT ON COLUMN sqlbuffer.buffers.name IS 'Name under which it is opened';
COMMENT ON COLUMN sqlbuffer.buffers.kind IS 'Name of the weight function';
COMMENT ON COLUMN sqlbuffer.buffers.mode IS 'consume: a drawn sample leaves the pool; replay: it stays';
COMMENT ON COLUMN sqlbuffer.buffers.seed IS 'Seed of the race, an integer of any size';
COMMENT ON COLUMN sqlbuffer.buffers.base_score IS 'Lowest score of the pool, from which the shift weighting counts';
COMMENT ON COLUMN sqlbuffer.buffers.score_version IS 'Version that the next scores get';
COMMENT ON COLUMN sqlbuffer.buffers.refresh_version IS 'Score version that the newest refresh asked for';
COMMENT ON COLUMN sqlbuffer.buffers.refreshed_version IS 'Score version that the newest finished refresh gave';
COMMENT ON COLUMN sqlbuffer.buffers.settings IS 'Parameters of the weight function, and what else shapes draws';
COMMENT ON COLUMN sqlbuffer.buffers.created_at IS 'When it was created (UTC)';
COMMENT ON COLUMN sqlbuffer.buffers.key IS 'Module and name of the key function; '''' for none, ''?'' for one without a name';
COMMENT ON COLUMN sqlbuffer.buffers.top_score IS 'What can be drawn and has at least this score is marked as top; NULL: nothing is';
COMMENT ON COLUMN sqlbuffer.buffers.max_size IS 'Most samples that may wait once they are scored; NULL: any number';
COMMENT ON COLUMN sqlbuffer.buffers.epoch IS 'How often every key of the race has been moved at once';
COMMENT ON COLUMN sqlbuffer.buffers.direction IS 'maximize: a higher reward is better; minimize: a lower one';
COMMENT ON COLUMN sqlbuffer.buffers.objective IS 'Name of the reward function whose rewards the samples have';
COMMENT ON COLUMN sqlbuffer.buffers.budget IS 'Most samples that may be measured, failed or claimed; NULL: any number';
COMMENT ON COLUMN sqlbuffer.buffers.max_attempts IS 'How often a worker may die while it measures a sample before the sample has failed; NULL: any number';
COMMENT ON COLUMN sqlbuffer.buffers.evict IS 'Which samples leave beyond max_size: the lightest, or the oldest';
COMMENT ON COLUMN sqlbuffer.buffers.keep_key IS 'True if the key of each sample is stored with it';
COMMENT ON COLUMN sqlbuffer.buffers.pruned_batch IS 'Draws of batches below this number were dropped; NULL: all are there';
CREATE TABLE sqlbuffer.draws (
    batch_id bigint NOT NULL,
    "position" integer NOT NULL,
    sample_id bigint NOT NULL,
    race_key double precision NOT NULL,
    weight double precision,
    reported boolean DEFAULT false NOT NULL,
    started_at timestamp with time zone
);
COMMENT ON TABLE sqlbuffer.draws IS 'One row for each sample in each batch';
COMMENT ON COLUMN sqlbuffer.draws.batch_id IS 'The batch';
COMMENT ON COLUMN sqlbuffer.draws."position" IS 'Place in the batch, from 0';
COMMENT ON COLUMN sqlbuffer.draws.sample_id IS 'The sample drawn';
COMMENT ON COLUMN sqlbuffer.draws.race_key IS 'Its race key when it was drawn';
COMMENT ON COLUMN sqlbuffer.draws.weight IS 'Its weight when it was drawn';
COMMENT ON COLUMN sqlbuffer.draws.reported IS 'True when its reward came before the batch was closed';
COMMENT ON COLUMN sqlbuffer.draws.started_at IS 'When its measurement was started (UTC)';
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
    created_iteration integer NOT NULL,
    created_tick bigint,
    scored_tick bigint,
    rewarded_tick bigint,
    error text,
    attempts integer DEFAULT 0 NOT NULL,
    evicted boolean DEFAULT false NOT NULL,
    key text
);
COMMENT ON TABLE sqlbuffer.samples IS 'One row for each distinct sample of a buffer, with its score and its reward';
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
COMMENT ON COLUMN sqlbuffer.samples.created_tick IS 'Logical time when it was first stored; NULL: by an older release';
COMMENT ON COLUMN sqlbuffer.samples.scored_tick IS 'Logical time when it was scored';
COMMENT ON COLUMN sqlbuffer.samples.rewarded_tick IS 'Logical time when the reward was stored';
COMMENT ON COLUMN sqlbuffer.samples.error IS 'Why the measurement failed; NULL if it has a reward, or was not measured';
COMMENT ON COLUMN sqlbuffer.samples.attempts IS 'Workers that have died while they measured it';
COMMENT ON COLUMN sqlbuffer.samples.evicted IS 'True if it left the pool because of max_size';
COMMENT ON COLUMN sqlbuffer.samples.key IS 'Its key, where the buffer keeps keys';
CREATE VIEW sqlbuffer.batch_overview AS
 SELECT b.name AS buffer,
    t.id AS batch_id,
    t.iteration,
        CASE
            WHEN (t.settled_at IS NOT NULL) THEN 'settled'::text
            WHEN (t.released_at IS NOT NULL) THEN 'released'::text
            ELSE 'open'::text
        END AS state,
    t.size,
    t.n_argmax,
    ( SELECT avg(s.reward) AS avg
           FROM (sqlbuffer.draws d
             JOIN sqlbuffer.samples s ON ((s.id = d.sample_id)))
          WHERE (d.batch_id = t.id)) AS mean_reward,
    t.worker_id,
    COALESCE((EXTRACT(epoch FROM (COALESCE(t.settled_at, t.released_at) - t.drawn_at)))::double precision, (EXTRACT(epoch FROM (now() - t.drawn_at)))::double precision) AS open_s,
    t.drawn_at,
    t.settled_at,
    t.released_at,
    t.lease_until,
    t.id
   FROM (sqlbuffer.batches t
     JOIN sqlbuffer.buffers b ON ((b.id = t.buffer_id)));
COMMENT ON VIEW sqlbuffer.batch_overview IS 'One row for each batch: its state, its worker and its mean reward';
COMMENT ON COLUMN sqlbuffer.batch_overview.buffer IS 'Name of the buffer';
COMMENT ON COLUMN sqlbuffer.batch_overview.batch_id IS 'Number of the batch';
COMMENT ON COLUMN sqlbuffer.batch_overview.iteration IS 'Iteration that it was drawn for, from 0';
COMMENT ON COLUMN sqlbuffer.batch_overview.state IS 'open, settled or released';
COMMENT ON COLUMN sqlbuffer.batch_overview.size IS 'Samples in it';
COMMENT ON COLUMN sqlbuffer.batch_overview.n_argmax IS 'Samples of its argmax share, which come first; NULL: by an older release';
COMMENT ON COLUMN sqlbuffer.batch_overview.mean_reward IS 'Mean of the rewards that its samples have now';
COMMENT ON COLUMN sqlbuffer.batch_overview.worker_id IS 'The worker that drew it';
COMMENT ON COLUMN sqlbuffer.batch_overview.open_s IS 'Seconds from the draw until it was closed, or until now';
COMMENT ON COLUMN sqlbuffer.batch_overview.drawn_at IS 'When it was drawn (UTC)';
COMMENT ON COLUMN sqlbuffer.batch_overview.settled_at IS 'When its rewards were stored (UTC)';
COMMENT ON COLUMN sqlbuffer.batch_overview.released_at IS 'When its samples went back to the pool (UTC)';
COMMENT ON COLUMN sqlbuffer.batch_overview.lease_until IS 'Until when it stays claimed without its worker (UTC); NULL: while that lives';
COMMENT ON COLUMN sqlbuffer.batch_overview.id IS 'Same as batch_id; dropped in 0.7.0';
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
    failed bigint NOT NULL,
    tick bigint DEFAULT 0 NOT NULL,
    finished_at timestamp with time zone,
    touched double precision DEFAULT 0 NOT NULL
);
COMMENT ON TABLE sqlbuffer.workers IS 'One row for each process attached to a buffer, with its counters';
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
COMMENT ON COLUMN sqlbuffer.workers.tick IS 'Logical time of its last transaction: more than that of any transaction it could see';
COMMENT ON COLUMN sqlbuffer.workers.finished_at IS 'When it closed the buffer (UTC); NULL while it is attached';
COMMENT ON COLUMN sqlbuffer.workers.touched IS 'Latest clock at which it let a sample join the race, or changed a weight';
CREATE VIEW sqlbuffer.buffer_overview AS
 SELECT b.name AS buffer,
    b.kind,
    b.mode,
    b.direction,
    b.objective,
    COALESCE(w.iteration, 0) AS iteration,
    COALESCE((w.joined -
        CASE b.mode
            WHEN 'consume'::text THEN w.taken
            ELSE (0)::bigint
        END), (0)::bigint) AS waiting,
    COALESCE(w.unscored, (0)::bigint) AS unscored,
    COALESCE(w.unscorable, (0)::bigint) AS unscorable,
    COALESCE(w.stored, (0)::bigint) AS stored,
    COALESCE(w.claimed, (0)::bigint) AS claimed,
    COALESCE(w.measured, (0)::bigint) AS measured,
    COALESCE(w.failed, (0)::bigint) AS failed,
        CASE b.direction
            WHEN 'minimize'::text THEN ( SELECT min(s.reward) AS min
               FROM sqlbuffer.samples s
              WHERE ((s.buffer_id = b.id) AND (s.reward IS NOT NULL)))
            ELSE ( SELECT max(s.reward) AS max
               FROM sqlbuffer.samples s
              WHERE ((s.buffer_id = b.id) AND (s.reward IS NOT NULL)))
        END AS best_reward,
    b.budget,
    (COALESCE((w.measured + w.failed), (0)::bigint) + ( SELECT count(DISTINCT d.sample_id) AS count
           FROM ((sqlbuffer.batches t
             JOIN sqlbuffer.draws d ON ((d.batch_id = t.id)))
             JOIN sqlbuffer.samples s ON ((s.id = d.sample_id)))
          WHERE ((t.buffer_id = b.id) AND (t.settled_at IS NULL) AND (t.released_at IS NULL) AND (s.rewarded_at IS NULL) AND (NOT d.reported) AND (t.worker_id > ''::text)))) AS budget_used,
    b.max_size,
    b.score_version,
    b.created_at,
    w.seen_at
   FROM (sqlbuffer.buffers b
     LEFT JOIN ( SELECT workers.buffer_id,
            (sum(workers.iterations))::integer AS iteration,
            (sum(((workers.added + workers.requeued) - workers.removed)))::bigint AS joined,
            (sum((workers.drawn - workers.released)))::bigint AS taken,
            (sum(workers.unscored))::bigint AS unscored,
            (sum(workers.unscorable))::bigint AS unscorable,
            (sum((workers.added + workers.recorded)))::bigint AS stored,
            (sum(((workers.drawn - workers.released) - workers.settled)))::bigint AS claimed,
            (sum(workers.measured))::bigint AS measured,
            (sum(workers.failed))::bigint AS failed,
            max(workers.heartbeat_at) AS seen_at
           FROM sqlbuffer.workers
          GROUP BY workers.buffer_id) w ON ((w.buffer_id = b.id)));
COMMENT ON VIEW sqlbuffer.buffer_overview IS 'One row for each buffer: its settings, its counts and its best reward';
COMMENT ON COLUMN sqlbuffer.buffer_overview.buffer IS 'Name of the buffer';
COMMENT ON COLUMN sqlbuffer.buffer_overview.kind IS 'Name of the weight function';
COMMENT ON COLUMN sqlbuffer.buffer_overview.mode IS 'consume: a drawn sample leaves the pool; replay: it stays';
COMMENT ON COLUMN sqlbuffer.buffer_overview.direction IS 'maximize: a higher reward is better; minimize: a lower one';
COMMENT ON COLUMN sqlbuffer.buffer_overview.objective IS 'Name of the reward function';
COMMENT ON COLUMN sqlbuffer.buffer_overview.iteration IS 'Batches settled so far';
COMMENT ON COLUMN sqlbuffer.buffer_overview.waiting IS 'Samples in the pool';
COMMENT ON COLUMN sqlbuffer.buffer_overview.unscored IS 'Samples in the pool without a score';
COMMENT ON COLUMN sqlbuffer.buffer_overview.unscorable IS 'Samples in the pool that are never drawn: their weight is 0';
COMMENT ON COLUMN sqlbuffer.buffer_overview.stored IS 'Distinct samples stored so far';
COMMENT ON COLUMN sqlbuffer.buffer_overview.claimed IS 'Draws that are neither settled nor released';
COMMENT ON COLUMN sqlbuffer.buffer_overview.measured IS 'Distinct samples with a reward';
COMMENT ON COLUMN sqlbuffer.buffer_overview.failed IS 'Distinct samples whose measurement failed';
COMMENT ON COLUMN sqlbuffer.buffer_overview.best_reward IS 'The highest reward, under minimize the lowest';
COMMENT ON COLUMN sqlbuffer.buffer_overview.budget IS 'Most samples that may be measured, failed or claimed; NULL: any number';
COMMENT ON COLUMN sqlbuffer.buffer_overview.budget_used IS 'Distinct samples that are measured, failed or claimed';
COMMENT ON COLUMN sqlbuffer.buffer_overview.max_size IS 'Most samples that may wait once they are scored; NULL: any number';
COMMENT ON COLUMN sqlbuffer.buffer_overview.score_version IS 'Version that the next scores get';
COMMENT ON COLUMN sqlbuffer.buffer_overview.created_at IS 'When it was created (UTC)';
COMMENT ON COLUMN sqlbuffer.buffer_overview.seen_at IS 'When one of its workers was last seen alive (UTC)';
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
COMMENT ON TABLE sqlbuffer.checkpoints IS 'One row for each checkpoint of a training loop';
COMMENT ON COLUMN sqlbuffer.checkpoints.buffer_id IS 'The buffer it belongs to';
COMMENT ON COLUMN sqlbuffer.checkpoints.name IS 'What it is a checkpoint of';
COMMENT ON COLUMN sqlbuffer.checkpoints.iteration IS 'Batches settled when it was written';
COMMENT ON COLUMN sqlbuffer.checkpoints.data IS 'The state';
COMMENT ON COLUMN sqlbuffer.checkpoints.created_at IS 'When it was written (UTC)';
CREATE VIEW sqlbuffer.draw_overview AS
 SELECT b.name AS buffer,
    t.id AS batch_id,
    t.iteration,
    d."position",
    d.sample_id,
    s.text AS sample,
    s.source,
        CASE
            WHEN ((t.settled_at IS NOT NULL) OR d.reported) THEN 'settled'::text
            WHEN (t.released_at IS NOT NULL) THEN 'released'::text
            ELSE 'open'::text
        END AS state,
    d.weight,
    s.score,
    s.reward,
    t.worker_id,
    (EXTRACT(epoch FROM (t.drawn_at - s.created_at)))::double precision AS waited_s,
    t.drawn_at,
    d.started_at,
    s.text
   FROM (((sqlbuffer.draws d
     JOIN sqlbuffer.batches t ON ((t.id = d.batch_id)))
     JOIN sqlbuffer.buffers b ON ((b.id = t.buffer_id)))
     JOIN sqlbuffer.samples s ON ((s.id = d.sample_id)));
COMMENT ON VIEW sqlbuffer.draw_overview IS 'One row for each sample in each batch';
COMMENT ON COLUMN sqlbuffer.draw_overview.buffer IS 'Name of the buffer';
COMMENT ON COLUMN sqlbuffer.draw_overview.batch_id IS 'Number of the batch';
COMMENT ON COLUMN sqlbuffer.draw_overview.iteration IS 'Iteration that the batch was drawn for, from 0';
COMMENT ON COLUMN sqlbuffer.draw_overview."position" IS 'Place in the batch, from 0';
COMMENT ON COLUMN sqlbuffer.draw_overview.sample_id IS 'Number of the sample';
COMMENT ON COLUMN sqlbuffer.draw_overview.sample IS 'The sample, or a readable rendering of it';
COMMENT ON COLUMN sqlbuffer.draw_overview.source IS 'Name of the generator that added it first';
COMMENT ON COLUMN sqlbuffer.draw_overview.state IS 'open, settled or released';
COMMENT ON COLUMN sqlbuffer.draw_overview.weight IS 'Its weight when it was drawn';
COMMENT ON COLUMN sqlbuffer.draw_overview.score IS 'Newest prediction for it; NULL when not scored, or when it was not finite';
COMMENT ON COLUMN sqlbuffer.draw_overview.reward IS 'Reward that the sample has now; NULL when not measured, or failed';
COMMENT ON COLUMN sqlbuffer.draw_overview.worker_id IS 'The worker that drew it';
COMMENT ON COLUMN sqlbuffer.draw_overview.waited_s IS 'Seconds from when the sample was first stored until this draw';
COMMENT ON COLUMN sqlbuffer.draw_overview.drawn_at IS 'When it was drawn (UTC)';
COMMENT ON COLUMN sqlbuffer.draw_overview.started_at IS 'When its measurement was started (UTC)';
COMMENT ON COLUMN sqlbuffer.draw_overview.text IS 'Same as sample; dropped in 0.7.0';
CREATE TABLE sqlbuffer.measurements (
    id bigint NOT NULL,
    buffer_id integer NOT NULL,
    sample_id bigint NOT NULL,
    batch_id bigint,
    worker_id text NOT NULL,
    objective text NOT NULL,
    reward double precision,
    error text,
    seconds double precision,
    details jsonb,
    measured_at timestamp with time zone NOT NULL,
    measured_tick bigint
);
COMMENT ON TABLE sqlbuffer.measurements IS 'One row for each reward, and each failure, that was stored';
COMMENT ON COLUMN sqlbuffer.measurements.id IS 'Number of the measurement';
COMMENT ON COLUMN sqlbuffer.measurements.buffer_id IS 'The buffer it belongs to';
COMMENT ON COLUMN sqlbuffer.measurements.sample_id IS 'The measured sample';
COMMENT ON COLUMN sqlbuffer.measurements.batch_id IS 'The batch that it was drawn in; NULL: it was not drawn';
COMMENT ON COLUMN sqlbuffer.measurements.worker_id IS 'The worker that stored it';
COMMENT ON COLUMN sqlbuffer.measurements.objective IS 'Name of the reward function';
COMMENT ON COLUMN sqlbuffer.measurements.reward IS 'Measured reward; NULL if the measurement failed';
COMMENT ON COLUMN sqlbuffer.measurements.error IS 'Why the measurement failed; NULL if it did not';
COMMENT ON COLUMN sqlbuffer.measurements.seconds IS 'How long it took; NULL if it is not known';
COMMENT ON COLUMN sqlbuffer.measurements.details IS 'What else was measured';
COMMENT ON COLUMN sqlbuffer.measurements.measured_at IS 'When it was stored (UTC)';
COMMENT ON COLUMN sqlbuffer.measurements.measured_tick IS 'Logical time when it was stored; NULL: by an older release';
CREATE VIEW sqlbuffer.failure_overview AS
 SELECT b.name AS buffer,
    m.id AS measurement_id,
    m.sample_id,
    s.text AS sample,
    s.source,
    m.batch_id,
    t.iteration,
    m.objective,
    split_part(m.error, ':'::text, 1) AS reason,
    m.error,
    m.seconds,
    s.attempts,
        CASE
            WHEN (s.queued AND (s.id IN ( SELECT d.sample_id
               FROM (sqlbuffer.batches t_1
                 JOIN sqlbuffer.draws d ON ((d.batch_id = t_1.id)))
              WHERE ((t_1.settled_at IS NULL) AND (t_1.released_at IS NULL) AND (NOT d.reported))))) THEN 'claimed'::text
            WHEN (s.queued AND ((b.mode = 'consume'::text) OR (s.rewarded_at IS NULL))) THEN 'waiting'::text
            WHEN (s.error IS NOT NULL) THEN 'failed'::text
            WHEN (s.reward IS NOT NULL) THEN 'measured'::text
            ELSE 'out'::text
        END AS sample_state,
    m.worker_id,
    m.measured_at
   FROM (((sqlbuffer.measurements m
     JOIN sqlbuffer.buffers b ON ((b.id = m.buffer_id)))
     JOIN sqlbuffer.samples s ON ((s.id = m.sample_id)))
     LEFT JOIN sqlbuffer.batches t ON ((t.id = m.batch_id)))
  WHERE (m.error IS NOT NULL);
COMMENT ON VIEW sqlbuffer.failure_overview IS 'One row for each measurement that failed, also of samples that were measured later';
COMMENT ON COLUMN sqlbuffer.failure_overview.buffer IS 'Name of the buffer';
COMMENT ON COLUMN sqlbuffer.failure_overview.measurement_id IS 'Number of the measurement';
COMMENT ON COLUMN sqlbuffer.failure_overview.sample_id IS 'Number of the sample';
COMMENT ON COLUMN sqlbuffer.failure_overview.sample IS 'The sample, or a readable rendering of it';
COMMENT ON COLUMN sqlbuffer.failure_overview.source IS 'Name of the generator that added it first';
COMMENT ON COLUMN sqlbuffer.failure_overview.batch_id IS 'Number of the batch that it was drawn in; NULL: it was not drawn';
COMMENT ON COLUMN sqlbuffer.failure_overview.iteration IS 'Iteration that the batch was drawn for, from 0; NULL: it was not drawn';
COMMENT ON COLUMN sqlbuffer.failure_overview.objective IS 'Name of the reward function';
COMMENT ON COLUMN sqlbuffer.failure_overview.reason IS 'The error up to its first colon, such as the class of an exception';
COMMENT ON COLUMN sqlbuffer.failure_overview.error IS 'Why the measurement failed';
COMMENT ON COLUMN sqlbuffer.failure_overview.seconds IS 'How long it took; NULL if it is not known';
COMMENT ON COLUMN sqlbuffer.failure_overview.attempts IS 'Workers that have died while they measured the sample';
COMMENT ON COLUMN sqlbuffer.failure_overview.sample_state IS 'State of the sample now, as in sample_overview';
COMMENT ON COLUMN sqlbuffer.failure_overview.worker_id IS 'The worker that stored it';
COMMENT ON COLUMN sqlbuffer.failure_overview.measured_at IS 'When it was stored (UTC)';
CREATE TABLE sqlbuffer.jobs (
    buffer_id integer NOT NULL,
    name text NOT NULL,
    owner text,
    lease_until timestamp with time zone,
    last_started_at timestamp with time zone,
    last_finished_at timestamp with time zone,
    last_error text,
    runs bigint DEFAULT 0 NOT NULL,
    measured bigint DEFAULT 0 NOT NULL,
    schedule text,
    ended_run bigint
);
COMMENT ON TABLE sqlbuffer.jobs IS 'One row for each kind of work that one process does at a time';
COMMENT ON COLUMN sqlbuffer.jobs.buffer_id IS 'The buffer it belongs to';
COMMENT ON COLUMN sqlbuffer.jobs.name IS 'Name of the job';
COMMENT ON COLUMN sqlbuffer.jobs.owner IS 'The worker that runs it; NULL when none does';
COMMENT ON COLUMN sqlbuffer.jobs.lease_until IS 'Until when the owner has it (UTC)';
COMMENT ON COLUMN sqlbuffer.jobs.last_started_at IS 'When it last started (UTC)';
COMMENT ON COLUMN sqlbuffer.jobs.last_finished_at IS 'When it last finished (UTC)';
COMMENT ON COLUMN sqlbuffer.jobs.last_error IS 'What went wrong the last time; NULL when nothing did';
COMMENT ON COLUMN sqlbuffer.jobs.runs IS 'How often it was taken; the owner of an earlier run can store nothing any more';
COMMENT ON COLUMN sqlbuffer.jobs.measured IS 'Labelled samples there were when it last started';
COMMENT ON COLUMN sqlbuffer.jobs.schedule IS 'When it is due, in words';
COMMENT ON COLUMN sqlbuffer.jobs.ended_run IS 'Run that came to an end last; NULL: none, or one of an older release';
CREATE TABLE sqlbuffer.lineage (
    id text NOT NULL
);
COMMENT ON TABLE sqlbuffer.lineage IS 'The random name of this database';
COMMENT ON COLUMN sqlbuffer.lineage.id IS 'Random name of this database, given when it was created';
CREATE VIEW sqlbuffer.measurement_overview AS
 SELECT b.name AS buffer,
    m.id AS measurement_id,
    m.sample_id,
    s.text AS sample,
    s.source,
    m.batch_id,
    t.iteration,
    m.objective,
    m.reward,
    m.error,
    m.seconds,
    m.details,
    m.worker_id,
    m.measured_at,
    m.id,
    s.text
   FROM (((sqlbuffer.measurements m
     JOIN sqlbuffer.buffers b ON ((b.id = m.buffer_id)))
     JOIN sqlbuffer.samples s ON ((s.id = m.sample_id)))
     LEFT JOIN sqlbuffer.batches t ON ((t.id = m.batch_id)));
COMMENT ON VIEW sqlbuffer.measurement_overview IS 'One row for each measurement, also of samples that were measured several times';
COMMENT ON COLUMN sqlbuffer.measurement_overview.buffer IS 'Name of the buffer';
COMMENT ON COLUMN sqlbuffer.measurement_overview.measurement_id IS 'Number of the measurement';
COMMENT ON COLUMN sqlbuffer.measurement_overview.sample_id IS 'Number of the sample';
COMMENT ON COLUMN sqlbuffer.measurement_overview.sample IS 'The sample, or a readable rendering of it';
COMMENT ON COLUMN sqlbuffer.measurement_overview.source IS 'Name of the generator that added it first';
COMMENT ON COLUMN sqlbuffer.measurement_overview.batch_id IS 'Number of the batch that it was drawn in; NULL: it was not drawn';
COMMENT ON COLUMN sqlbuffer.measurement_overview.iteration IS 'Iteration that the batch was drawn for, from 0; NULL: it was not drawn';
COMMENT ON COLUMN sqlbuffer.measurement_overview.objective IS 'Name of the reward function';
COMMENT ON COLUMN sqlbuffer.measurement_overview.reward IS 'Measured reward; NULL if the measurement failed';
COMMENT ON COLUMN sqlbuffer.measurement_overview.error IS 'Why the measurement failed; NULL if it did not';
COMMENT ON COLUMN sqlbuffer.measurement_overview.seconds IS 'How long it took; NULL if it is not known';
COMMENT ON COLUMN sqlbuffer.measurement_overview.details IS 'What else was measured, as JSON';
COMMENT ON COLUMN sqlbuffer.measurement_overview.worker_id IS 'The worker that stored it';
COMMENT ON COLUMN sqlbuffer.measurement_overview.measured_at IS 'When it was stored (UTC)';
COMMENT ON COLUMN sqlbuffer.measurement_overview.id IS 'Same as measurement_id; dropped in 0.7.0';
COMMENT ON COLUMN sqlbuffer.measurement_overview.text IS 'Same as sample; dropped in 0.7.0';
CREATE SEQUENCE sqlbuffer.measurements_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE sqlbuffer.measurements_id_seq OWNED BY sqlbuffer.measurements.id;
CREATE TABLE sqlbuffer.metrics (
    buffer_id integer NOT NULL,
    iteration integer NOT NULL,
    name text NOT NULL,
    value double precision,
    recorded_at timestamp with time zone NOT NULL
);
COMMENT ON TABLE sqlbuffer.metrics IS 'One row for each metric of each iteration';
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
    top boolean NOT NULL,
    tie bytea,
    entries bigint DEFAULT 0 NOT NULL,
    score double precision
)
WITH (autovacuum_vacuum_scale_factor='0.01');
COMMENT ON TABLE sqlbuffer.pool IS 'One row for each waiting sample, clustered by its place in the race';
COMMENT ON COLUMN sqlbuffer.pool.buffer_id IS 'The buffer it belongs to';
COMMENT ON COLUMN sqlbuffer.pool.race_key IS 'Arrival time in the race; +infinity: never drawn';
COMMENT ON COLUMN sqlbuffer.pool.sample_id IS 'The waiting sample';
COMMENT ON COLUMN sqlbuffer.pool.weight IS 'Rate at which it is drawn; NULL when not scored, 0 when never to be drawn';
COMMENT ON COLUMN sqlbuffer.pool.top IS 'True for the heaviest, from which the argmax share is taken';
COMMENT ON COLUMN sqlbuffer.pool.tie IS 'Last 8 bytes of the hash, which decide between equal scores; NULL where not top';
COMMENT ON COLUMN sqlbuffer.pool.entries IS 'How often it has entered the race; in replay mode it names the variate of its key';
COMMENT ON COLUMN sqlbuffer.pool.score IS 'Score that its weight comes from; NULL when it has none or cannot be drawn';
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
    worker_id text NOT NULL,
    rows_held_out integer DEFAULT 0 NOT NULL,
    rank_correlation double precision,
    r2 double precision,
    trained_tick bigint
);
COMMENT ON TABLE sqlbuffer.predictors IS 'One row for each trained state of the predictor';
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
COMMENT ON COLUMN sqlbuffer.predictors.rows_held_out IS 'Labelled samples it never saw, on which it was measured';
COMMENT ON COLUMN sqlbuffer.predictors.rank_correlation IS 'Spearman''s, of predictions and rewards of the rows held out';
COMMENT ON COLUMN sqlbuffer.predictors.r2 IS 'Share of the variance of the held-out rewards that it explains';
COMMENT ON COLUMN sqlbuffer.predictors.trained_tick IS 'Logical time when it was stored; NULL: by an older release';
CREATE VIEW sqlbuffer.predictor_overview AS
 SELECT b.name AS buffer,
    p.version AS predictor,
    p.iteration,
    p.rows_trained,
    p.rows_held_out,
    p.train_loss,
    p.valid_loss,
    p.rank_correlation,
    p.r2,
    p.metrics,
    length(p.state) AS size_bytes,
    p.worker_id,
    p.trained_at
   FROM (sqlbuffer.predictors p
     JOIN sqlbuffer.buffers b ON ((b.id = p.buffer_id)));
COMMENT ON VIEW sqlbuffer.predictor_overview IS 'One row for each version of the predictor, with its quality';
COMMENT ON COLUMN sqlbuffer.predictor_overview.buffer IS 'Name of the buffer';
COMMENT ON COLUMN sqlbuffer.predictor_overview.predictor IS 'Version of the predictor';
COMMENT ON COLUMN sqlbuffer.predictor_overview.iteration IS 'Batches settled when it was trained';
COMMENT ON COLUMN sqlbuffer.predictor_overview.rows_trained IS 'Labelled samples it was trained on';
COMMENT ON COLUMN sqlbuffer.predictor_overview.rows_held_out IS 'Labelled samples it never saw, on which it was measured';
COMMENT ON COLUMN sqlbuffer.predictor_overview.train_loss IS 'Loss on the training rows';
COMMENT ON COLUMN sqlbuffer.predictor_overview.valid_loss IS 'Loss on the rows by which the best epoch was chosen';
COMMENT ON COLUMN sqlbuffer.predictor_overview.rank_correlation IS 'Correlation of the ranks of predictions and rewards of the rows held out';
COMMENT ON COLUMN sqlbuffer.predictor_overview.r2 IS 'Share of the variance of the held-out rewards that it explains';
COMMENT ON COLUMN sqlbuffer.predictor_overview.metrics IS 'Other measures of its training, as JSON';
COMMENT ON COLUMN sqlbuffer.predictor_overview.size_bytes IS 'Size of its stored weights; 0 if they were dropped';
COMMENT ON COLUMN sqlbuffer.predictor_overview.worker_id IS 'The worker that trained it';
COMMENT ON COLUMN sqlbuffer.predictor_overview.trained_at IS 'When it was stored (UTC)';
CREATE TABLE sqlbuffer.receipts (
    connection text NOT NULL,
    number bigint NOT NULL,
    written_at timestamp with time zone NOT NULL
);
COMMENT ON TABLE sqlbuffer.receipts IS 'One row for each connection of a server, which proves its last commit';
COMMENT ON COLUMN sqlbuffer.receipts.connection IS 'Random name of a connection to a server; none on SQLite';
COMMENT ON COLUMN sqlbuffer.receipts.number IS 'Number of the last transaction that it committed';
COMMENT ON COLUMN sqlbuffer.receipts.written_at IS 'When that was (UTC)';
CREATE VIEW sqlbuffer.sample_overview AS
 SELECT b.name AS buffer,
    s.id AS sample_id,
    s.text AS sample,
    s.key,
    s.source,
        CASE
            WHEN (s.queued AND (s.id IN ( SELECT d.sample_id
               FROM (sqlbuffer.batches t
                 JOIN sqlbuffer.draws d ON ((d.batch_id = t.id)))
              WHERE ((t.settled_at IS NULL) AND (t.released_at IS NULL) AND (NOT d.reported))))) THEN 'claimed'::text
            WHEN (s.queued AND ((b.mode = 'consume'::text) OR (s.rewarded_at IS NULL))) THEN 'waiting'::text
            WHEN (s.error IS NOT NULL) THEN 'failed'::text
            WHEN (s.reward IS NOT NULL) THEN 'measured'::text
            ELSE 'out'::text
        END AS state,
    s.queued,
    s.requeues,
    s.score,
    s.score_version,
    ( SELECT max(p.version) AS max
           FROM sqlbuffer.predictors p
          WHERE ((p.buffer_id = s.buffer_id) AND (p.version <= s.score_version))) AS predictor,
    s.reward,
    s.error,
    s.attempts,
    s.meta,
    s.created_iteration,
    s.created_at,
    s.scored_at,
    s.rewarded_at AS measured_at,
    s.id,
    s.text,
    s.rewarded_at
   FROM (sqlbuffer.samples s
     JOIN sqlbuffer.buffers b ON ((b.id = s.buffer_id)));
COMMENT ON VIEW sqlbuffer.sample_overview IS 'One row for each sample: its state, its score and its reward';
COMMENT ON COLUMN sqlbuffer.sample_overview.buffer IS 'Name of the buffer';
COMMENT ON COLUMN sqlbuffer.sample_overview.sample_id IS 'Number of the sample';
COMMENT ON COLUMN sqlbuffer.sample_overview.sample IS 'The sample, or a readable rendering of it';
COMMENT ON COLUMN sqlbuffer.sample_overview.key IS 'Its key, where the buffer keeps keys';
COMMENT ON COLUMN sqlbuffer.sample_overview.source IS 'Name of the generator that added it first';
COMMENT ON COLUMN sqlbuffer.sample_overview.state IS 'waiting, claimed, measured, failed, or out: removed, evicted, settled without a reward';
COMMENT ON COLUMN sqlbuffer.sample_overview.queued IS 'True while it waits in the pool or in an open batch';
COMMENT ON COLUMN sqlbuffer.sample_overview.requeues IS 'How often it was added again after it had left the pool';
COMMENT ON COLUMN sqlbuffer.sample_overview.score IS 'Newest prediction for it; NULL when not scored, or when it was not finite';
COMMENT ON COLUMN sqlbuffer.sample_overview.score_version IS 'Version of the score; NULL when not scored';
COMMENT ON COLUMN sqlbuffer.sample_overview.predictor IS 'Version of the predictor that made the score; NULL if none was stored by then';
COMMENT ON COLUMN sqlbuffer.sample_overview.reward IS 'Measured reward; NULL when not measured, or when the measurement failed';
COMMENT ON COLUMN sqlbuffer.sample_overview.error IS 'Why the measurement failed; NULL if it has a reward, or was not measured';
COMMENT ON COLUMN sqlbuffer.sample_overview.attempts IS 'Workers that have died while they measured it';
COMMENT ON COLUMN sqlbuffer.sample_overview.meta IS 'What the user said about it, as JSON';
COMMENT ON COLUMN sqlbuffer.sample_overview.created_iteration IS 'Iteration of the buffer when it was first stored';
COMMENT ON COLUMN sqlbuffer.sample_overview.created_at IS 'When it was first stored (UTC)';
COMMENT ON COLUMN sqlbuffer.sample_overview.scored_at IS 'When it was scored (UTC)';
COMMENT ON COLUMN sqlbuffer.sample_overview.measured_at IS 'When the reward, or the failure, was stored (UTC)';
COMMENT ON COLUMN sqlbuffer.sample_overview.id IS 'Same as sample_id; dropped in 0.7.0';
COMMENT ON COLUMN sqlbuffer.sample_overview.text IS 'Same as sample; dropped in 0.7.0';
COMMENT ON COLUMN sqlbuffer.sample_overview.rewarded_at IS 'Same as measured_at; dropped in 0.7.0';
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
CREATE VIEW sqlbuffer.worker_overview AS
 SELECT b.name AS buffer,
    w.id AS worker_id,
    w.host,
    w.pid,
        CASE
            WHEN (w.id = 'ledger'::text) THEN 'ledger'::text
            WHEN (w.finished_at IS NOT NULL) THEN 'closed'::text
            ELSE 'attached'::text
        END AS state,
    ( SELECT count(t.id) AS count
           FROM sqlbuffer.batches t
          WHERE ((t.buffer_id = w.buffer_id) AND (t.worker_id = w.id) AND (t.settled_at IS NULL) AND (t.released_at IS NULL))) AS open_batches,
    w.batches,
    w.iterations,
    w.added,
    w.recorded,
    w.requeued,
    w.drawn,
    w.settled,
    w.released,
    w.removed,
    w.refused,
    w.measured,
    w.failed,
    (EXTRACT(epoch FROM (now() - w.heartbeat_at)))::double precision AS silent_s,
    w.created_at AS attached_at,
    w.heartbeat_at AS seen_at,
    w.finished_at
   FROM (sqlbuffer.workers w
     JOIN sqlbuffer.buffers b ON ((b.id = w.buffer_id)));
COMMENT ON VIEW sqlbuffer.worker_overview IS 'One row for each worker, and a ledger of each buffer that sums up those that are gone';
COMMENT ON COLUMN sqlbuffer.worker_overview.buffer IS 'Name of the buffer';
COMMENT ON COLUMN sqlbuffer.worker_overview.worker_id IS 'Host, pid and random letters; ''ledger'' sums up the workers that are gone';
COMMENT ON COLUMN sqlbuffer.worker_overview.host IS 'Host, boot and pid namespace in which the pid is unique';
COMMENT ON COLUMN sqlbuffer.worker_overview.pid IS 'Process number';
COMMENT ON COLUMN sqlbuffer.worker_overview.state IS 'attached, closed or ledger';
COMMENT ON COLUMN sqlbuffer.worker_overview.open_batches IS 'Batches that it holds';
COMMENT ON COLUMN sqlbuffer.worker_overview.batches IS 'Batches drawn by it, those released taken off';
COMMENT ON COLUMN sqlbuffer.worker_overview.iterations IS 'Batches settled by it as iterations of a loop';
COMMENT ON COLUMN sqlbuffer.worker_overview.added IS 'Samples stored by it for the first time';
COMMENT ON COLUMN sqlbuffer.worker_overview.recorded IS 'Samples stored by it with a reward, without waiting';
COMMENT ON COLUMN sqlbuffer.worker_overview.requeued IS 'Samples put into the pool again by it';
COMMENT ON COLUMN sqlbuffer.worker_overview.drawn IS 'Draws made by it';
COMMENT ON COLUMN sqlbuffer.worker_overview.settled IS 'Draws settled by it';
COMMENT ON COLUMN sqlbuffer.worker_overview.released IS 'Draws given back by it';
COMMENT ON COLUMN sqlbuffer.worker_overview.removed IS 'Samples taken out of the pool without a draw by it';
COMMENT ON COLUMN sqlbuffer.worker_overview.refused IS 'Samples without a key refused by it';
COMMENT ON COLUMN sqlbuffer.worker_overview.measured IS 'Change in samples that have a reward by it';
COMMENT ON COLUMN sqlbuffer.worker_overview.failed IS 'Change in samples whose measurement failed by it';
COMMENT ON COLUMN sqlbuffer.worker_overview.silent_s IS 'Seconds since it was seen alive';
COMMENT ON COLUMN sqlbuffer.worker_overview.attached_at IS 'When it attached (UTC)';
COMMENT ON COLUMN sqlbuffer.worker_overview.seen_at IS 'When it was last seen alive (UTC)';
COMMENT ON COLUMN sqlbuffer.worker_overview.finished_at IS 'When it closed the buffer (UTC); NULL while it is attached';
ALTER TABLE ONLY sqlbuffer.batches ALTER COLUMN id SET DEFAULT nextval('sqlbuffer.batches_id_seq'::regclass);
ALTER TABLE ONLY sqlbuffer.buffers ALTER COLUMN id SET DEFAULT nextval('sqlbuffer.buffers_id_seq'::regclass);
ALTER TABLE ONLY sqlbuffer.measurements ALTER COLUMN id SET DEFAULT nextval('sqlbuffer.measurements_id_seq'::regclass);
ALTER TABLE ONLY sqlbuffer.samples ALTER COLUMN id SET DEFAULT nextval('sqlbuffer.samples_id_seq'::regclass);
INSERT INTO sqlbuffer.batches VALUES (1, 1, 'vm-17770-95f31747', 0, 5, 0, 0.11811804924260919, '2026-11-30 20:46:52.207219+00', '2026-11-30 20:46:52.228575+00', NULL, 4, 5, false, NULL, NULL, 2);
INSERT INTO sqlbuffer.batches VALUES (2, 1, 'vm-17770-95f31747', 1, 5, 0.11811804924260919, 0.22220403899180627, '2026-11-30 20:46:52.291181+00', '2026-11-30 20:46:52.302319+00', NULL, 6, 7, false, NULL, NULL, 2);
INSERT INTO sqlbuffer.batches VALUES (3, 1, 'vm-17770-95f31747', 2, 5, 0.22220403899180627, 0.4916414195715166, '2026-11-30 20:46:52.333026+00', '2026-11-30 20:46:52.342245+00', NULL, 8, 9, false, NULL, NULL, 2);
INSERT INTO sqlbuffer.batches VALUES (4, 1, 'vm-17770-95f31747', 3, 4, 0.4916414195715166, 0.75671458611281, '2026-11-30 20:46:52.433454+00', NULL, '2026-11-30 20:46:52.445345+00', 12, 13, false, NULL, NULL, 0);
INSERT INTO sqlbuffer.batches VALUES (5, 1, 'vm-17770-95f31747', 3, 3, 0.4916414195715166, 0.7128531985458303, '2026-11-30 20:46:52.763373+00', NULL, NULL, 19, NULL, false, NULL, NULL, 0);
INSERT INTO sqlbuffer.batches VALUES (6, 1, 'vm-17770-95f31747', 3, 2, 0.7128531985458303, 0.905724848136697, '2026-11-30 20:46:52.817636+00', NULL, NULL, 21, NULL, false, NULL, NULL, 0);
INSERT INTO sqlbuffer.batches VALUES (7, 2, 'vm-17770-95f31747', 0, 5, 0, 0.03483253305259348, '2026-11-30 20:46:53.462208+00', '2026-11-30 20:46:53.489899+00', NULL, 4, 5, false, NULL, NULL, 2);
INSERT INTO sqlbuffer.batches VALUES (8, 2, 'vm-17770-95f31747', 1, 5, 0.03483253305259348, 0.08274212963067437, '2026-11-30 20:46:53.543661+00', '2026-11-30 20:46:53.567483+00', NULL, 6, 7, false, NULL, NULL, 2);
INSERT INTO sqlbuffer.batches VALUES (9, 2, 'vm-17770-95f31747', 2, 5, 0.08274212963067437, 0.1610841320688508, '2026-11-30 20:46:53.661498+00', '2026-11-30 20:46:53.689519+00', NULL, 8, 9, false, NULL, NULL, 2);
INSERT INTO sqlbuffer.batches VALUES (10, 2, 'vm-17770-95f31747', 3, 4, 0.1610841320688508, 0.3227838995336634, '2026-11-30 20:46:53.812252+00', NULL, '2026-11-30 20:46:53.851317+00', 12, 13, false, NULL, NULL, 0);
INSERT INTO sqlbuffer.batches VALUES (11, 2, 'vm-17770-95f31747', 3, 3, 0.1610841320688508, 0.29377981960011756, '2026-11-30 20:46:54.238116+00', NULL, NULL, 19, NULL, false, NULL, NULL, 0);
INSERT INTO sqlbuffer.batches VALUES (12, 2, 'vm-17770-95f31747', 3, 2, 0.29377981960011756, 0.3227838995336634, '2026-11-30 20:46:54.381466+00', NULL, NULL, 21, NULL, false, NULL, NULL, 0);
INSERT INTO sqlbuffer.buffers VALUES (1, 'consumed', 'shift', 'consume', '7', 2, 1, 0, 0, '{"weighting": {"name": "shift"}}', '2026-11-30 20:46:51.603561+00', '', '-Infinity', NULL, 1, 'maximize', 'reward', NULL, 3, 'lightest', false, NULL);
INSERT INTO sqlbuffer.buffers VALUES (2, 'replayed', 'shift', 'replay', '7', 2, 1, 0, 0, '{"weighting": {"name": "shift"}}', '2026-11-30 20:46:53.143283+00', '', '-Infinity', NULL, 1, 'maximize', 'reward', NULL, 3, 'lightest', false, NULL);
INSERT INTO sqlbuffer.checkpoints VALUES (1, 'agent', 3, '\x73746174652032', '2026-11-30 20:46:52.366546+00');
INSERT INTO sqlbuffer.checkpoints VALUES (2, 'agent', 3, '\x73746174652032', '2026-11-30 20:46:53.718596+00');
INSERT INTO sqlbuffer.draws VALUES (1, 0, 45, 0.017839905805350657, 8.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (1, 1, 43, 0.1267890819854647, 8.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (1, 2, 33, 0.02283571159197843, 1.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (1, 3, 42, 0.036123970336532724, 4.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (1, 4, 4, 0.11811804924260919, 1.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (2, 0, 10, 1.3972036129703045, 1.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (2, 1, 31, 1.5854270544608058, 1.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (2, 2, 12, 0.19443248440779232, 1.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (2, 3, 5, 0.2164723549650148, 1.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (2, 4, 11, 0.22220403899180627, 1.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (3, 0, 32, 2.7185229651534515, 1.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (3, 1, 6, 0.771720942867414, 1.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (3, 2, 3, 0.2274598858853754, 1.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (3, 3, 34, 0.47104975219144757, 1.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (3, 4, 2, 0.4916414195715166, 1.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (4, 0, 36, 0.5055747707995293, 1.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (4, 1, 39, 0.5607455479325618, 1.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (4, 2, 19, 0.7128531985458303, 1.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (4, 3, 20, 0.75671458611281, 1.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (5, 1, 39, 0.5607455479325618, 1.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (5, 2, 19, 0.7128531985458303, 1.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (5, 0, 36, 0.5055747707995293, 1.00000001, true, NULL);
INSERT INTO sqlbuffer.draws VALUES (6, 0, 20, 0.75671458611281, 1.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (6, 1, 35, 0.905724848136697, 1.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (7, 0, 95, 0.020619876424998552, 8.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (7, 1, 93, 0.04593762793788016, 8.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (7, 2, 86, 0.029316438582454293, 1.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (7, 3, 65, 0.03285461908549856, 1.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (7, 4, 51, 0.03483253305259348, 1.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (8, 0, 95, 0.06434448074802396, 8.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (8, 1, 93, 0.0407724553137292, 8.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (8, 2, 79, 0.07665703390585173, 1.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (8, 3, 63, 0.07697157092382069, 1.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (8, 4, 59, 0.08274212963067437, 1.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (9, 0, 95, 0.12332184831329845, 8.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (9, 1, 93, 0.20096132804759992, 8.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (9, 2, 83, 0.08815281813814592, 1.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (9, 3, 65, 0.14240513622149784, 1.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (9, 4, 71, 0.1610841320688508, 1.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (10, 0, 93, 0.19383718432240768, 8.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (10, 1, 95, 0.2707701297025107, 8.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (10, 2, 88, 0.29377981960011756, 1.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (10, 3, 78, 0.3227838995336634, 1.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (11, 1, 95, 0.2707701297025107, 8.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (11, 2, 88, 0.29377981960011756, 1.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (11, 0, 93, 0.19383718432240768, 8.00000001, true, NULL);
INSERT INTO sqlbuffer.draws VALUES (12, 0, 95, 0.3046719602750414, 8.00000001, false, NULL);
INSERT INTO sqlbuffer.draws VALUES (12, 1, 78, 0.3227838995336634, 1.00000001, false, NULL);
INSERT INTO sqlbuffer.jobs VALUES (1, 'retrain', NULL, NULL, '2026-11-30 20:46:52.504678+00', '2026-11-30 20:46:52.652149+00', NULL, 1, 11, NULL, 1);
INSERT INTO sqlbuffer.jobs VALUES (1, 'tidy', NULL, NULL, '2026-11-30 20:46:52.721022+00', '2026-11-30 20:46:52.731169+00', 'RuntimeError: no broom', 1, 11, 'every day', 1);
INSERT INTO sqlbuffer.jobs VALUES (2, 'retrain', NULL, NULL, '2026-11-30 20:46:53.897582+00', '2026-11-30 20:46:53.999156+00', NULL, 1, 10, NULL, 1);
INSERT INTO sqlbuffer.jobs VALUES (2, 'tidy', NULL, NULL, '2026-11-30 20:46:54.061075+00', '2026-11-30 20:46:54.147695+00', 'RuntimeError: no broom', 1, 10, 'every day', 1);
INSERT INTO sqlbuffer.lineage VALUES ('9fe1b07c97321be8');
INSERT INTO sqlbuffer.measurements VALUES (1, 1, 45, 1, 'vm-17770-95f31747', 'reward', NULL, 'the reward is None', NULL, NULL, '2026-11-30 20:46:52.256625+00', 5);
INSERT INTO sqlbuffer.measurements VALUES (2, 1, 43, 1, 'vm-17770-95f31747', 'reward', NULL, 'the reward is NaN', NULL, NULL, '2026-11-30 20:46:52.256847+00', 5);
INSERT INTO sqlbuffer.measurements VALUES (3, 1, 33, 1, 'vm-17770-95f31747', 'reward', 2, NULL, NULL, NULL, '2026-11-30 20:46:52.256855+00', 5);
INSERT INTO sqlbuffer.measurements VALUES (4, 1, 42, 1, 'vm-17770-95f31747', 'reward', 3, NULL, NULL, NULL, '2026-11-30 20:46:52.256859+00', 5);
INSERT INTO sqlbuffer.measurements VALUES (5, 1, 4, 1, 'vm-17770-95f31747', 'reward', 4, NULL, NULL, NULL, '2026-11-30 20:46:52.256863+00', 5);
INSERT INTO sqlbuffer.measurements VALUES (6, 1, 10, 2, 'vm-17770-95f31747', 'reward', NULL, 'the reward is None', NULL, NULL, '2026-11-30 20:46:52.314513+00', 7);
INSERT INTO sqlbuffer.measurements VALUES (7, 1, 31, 2, 'vm-17770-95f31747', 'reward', NULL, 'the reward is NaN', NULL, NULL, '2026-11-30 20:46:52.314534+00', 7);
INSERT INTO sqlbuffer.measurements VALUES (8, 1, 12, 2, 'vm-17770-95f31747', 'reward', 2, NULL, NULL, NULL, '2026-11-30 20:46:52.314539+00', 7);
INSERT INTO sqlbuffer.measurements VALUES (9, 1, 5, 2, 'vm-17770-95f31747', 'reward', 3, NULL, NULL, NULL, '2026-11-30 20:46:52.314542+00', 7);
INSERT INTO sqlbuffer.measurements VALUES (10, 1, 11, 2, 'vm-17770-95f31747', 'reward', 4, NULL, NULL, NULL, '2026-11-30 20:46:52.314545+00', 7);
INSERT INTO sqlbuffer.measurements VALUES (11, 1, 32, 3, 'vm-17770-95f31747', 'reward', NULL, 'the reward is None', NULL, NULL, '2026-11-30 20:46:52.355271+00', 9);
INSERT INTO sqlbuffer.measurements VALUES (12, 1, 6, 3, 'vm-17770-95f31747', 'reward', NULL, 'the reward is NaN', NULL, NULL, '2026-11-30 20:46:52.355295+00', 9);
INSERT INTO sqlbuffer.measurements VALUES (13, 1, 3, 3, 'vm-17770-95f31747', 'reward', 2, NULL, NULL, NULL, '2026-11-30 20:46:52.355299+00', 9);
INSERT INTO sqlbuffer.measurements VALUES (14, 1, 34, 3, 'vm-17770-95f31747', 'reward', 3, NULL, NULL, NULL, '2026-11-30 20:46:52.355303+00', 9);
INSERT INTO sqlbuffer.measurements VALUES (15, 1, 2, 3, 'vm-17770-95f31747', 'reward', 4, NULL, NULL, NULL, '2026-11-30 20:46:52.355306+00', 9);
INSERT INTO sqlbuffer.measurements VALUES (16, 1, 16, NULL, 'vm-17770-95f31747', 'reward', 8, NULL, NULL, NULL, '2026-11-30 20:46:52.414693+00', 11);
INSERT INTO sqlbuffer.measurements VALUES (17, 1, 48, NULL, 'vm-17770-95f31747', 'reward', 9, NULL, NULL, NULL, '2026-11-30 20:46:52.414722+00', 11);
INSERT INTO sqlbuffer.measurements VALUES (18, 1, 36, 5, 'vm-17770-95f31747', 'reward', 0.5, NULL, NULL, NULL, '2026-11-30 20:46:52.79711+00', 20);
INSERT INTO sqlbuffer.measurements VALUES (19, 2, 95, 7, 'vm-17770-95f31747', 'reward', NULL, 'the reward is None', NULL, NULL, '2026-11-30 20:46:53.5007+00', 5);
INSERT INTO sqlbuffer.measurements VALUES (20, 2, 93, 7, 'vm-17770-95f31747', 'reward', NULL, 'the reward is NaN', NULL, NULL, '2026-11-30 20:46:53.500795+00', 5);
INSERT INTO sqlbuffer.measurements VALUES (21, 2, 86, 7, 'vm-17770-95f31747', 'reward', 2, NULL, NULL, NULL, '2026-11-30 20:46:53.500802+00', 5);
INSERT INTO sqlbuffer.measurements VALUES (22, 2, 65, 7, 'vm-17770-95f31747', 'reward', 3, NULL, NULL, NULL, '2026-11-30 20:46:53.500806+00', 5);
INSERT INTO sqlbuffer.measurements VALUES (23, 2, 51, 7, 'vm-17770-95f31747', 'reward', 4, NULL, NULL, NULL, '2026-11-30 20:46:53.500811+00', 5);
INSERT INTO sqlbuffer.measurements VALUES (24, 2, 59, 8, 'vm-17770-95f31747', 'reward', 4, NULL, NULL, NULL, '2026-11-30 20:46:53.626457+00', 7);
INSERT INTO sqlbuffer.measurements VALUES (25, 2, 63, 8, 'vm-17770-95f31747', 'reward', 3, NULL, NULL, NULL, '2026-11-30 20:46:53.626485+00', 7);
INSERT INTO sqlbuffer.measurements VALUES (26, 2, 79, 8, 'vm-17770-95f31747', 'reward', 2, NULL, NULL, NULL, '2026-11-30 20:46:53.626489+00', 7);
INSERT INTO sqlbuffer.measurements VALUES (27, 2, 93, 8, 'vm-17770-95f31747', 'reward', NULL, 'the reward is NaN', NULL, NULL, '2026-11-30 20:46:53.626491+00', 7);
INSERT INTO sqlbuffer.measurements VALUES (28, 2, 95, 8, 'vm-17770-95f31747', 'reward', NULL, 'the reward is None', NULL, NULL, '2026-11-30 20:46:53.626494+00', 7);
INSERT INTO sqlbuffer.measurements VALUES (29, 2, 65, 9, 'vm-17770-95f31747', 'reward', 3, NULL, NULL, NULL, '2026-11-30 20:46:53.712901+00', 9);
INSERT INTO sqlbuffer.measurements VALUES (30, 2, 71, 9, 'vm-17770-95f31747', 'reward', 4, NULL, NULL, NULL, '2026-11-30 20:46:53.712928+00', 9);
INSERT INTO sqlbuffer.measurements VALUES (31, 2, 83, 9, 'vm-17770-95f31747', 'reward', 2, NULL, NULL, NULL, '2026-11-30 20:46:53.712931+00', 9);
INSERT INTO sqlbuffer.measurements VALUES (32, 2, 93, 9, 'vm-17770-95f31747', 'reward', NULL, 'the reward is NaN', NULL, NULL, '2026-11-30 20:46:53.712935+00', 9);
INSERT INTO sqlbuffer.measurements VALUES (33, 2, 95, 9, 'vm-17770-95f31747', 'reward', NULL, 'the reward is None', NULL, NULL, '2026-11-30 20:46:53.712939+00', 9);
INSERT INTO sqlbuffer.measurements VALUES (34, 2, 66, NULL, 'vm-17770-95f31747', 'reward', 8, NULL, NULL, NULL, '2026-11-30 20:46:53.782362+00', 11);
INSERT INTO sqlbuffer.measurements VALUES (35, 2, 98, NULL, 'vm-17770-95f31747', 'reward', 9, NULL, NULL, NULL, '2026-11-30 20:46:53.782386+00', 11);
INSERT INTO sqlbuffer.measurements VALUES (36, 2, 93, 11, 'vm-17770-95f31747', 'reward', 0.5, NULL, NULL, NULL, '2026-11-30 20:46:54.326422+00', 20);
INSERT INTO sqlbuffer.metrics VALUES (1, 0, 'loss', 1, '2026-11-30 20:46:52.236807+00');
INSERT INTO sqlbuffer.metrics VALUES (1, 1, 'loss', 0.5, '2026-11-30 20:46:52.312712+00');
INSERT INTO sqlbuffer.metrics VALUES (1, 2, 'loss', 0.3333333333333333, '2026-11-30 20:46:52.347644+00');
INSERT INTO sqlbuffer.metrics VALUES (2, 0, 'loss', 1, '2026-11-30 20:46:53.490647+00');
INSERT INTO sqlbuffer.metrics VALUES (2, 1, 'loss', 0.5, '2026-11-30 20:46:53.568069+00');
INSERT INTO sqlbuffer.metrics VALUES (2, 2, 'loss', 0.3333333333333333, '2026-11-30 20:46:53.690554+00');
INSERT INTO sqlbuffer.pool VALUES (1, 'Infinity', 41, 0, false, NULL, 1, NULL);
INSERT INTO sqlbuffer.pool VALUES (1, 0.9215758952807668, 28, 1.00000001, true, '\x505b1a0bd347d050', 1, 3);
INSERT INTO sqlbuffer.pool VALUES (1, 0.9863546425224001, 29, 1.00000001, true, '\x3c7faed901f068e2', 1, 3);
INSERT INTO sqlbuffer.pool VALUES (1, 1.5539358407332335, 17, 1.00000001, true, '\x3eea44277f58ff86', 1, 3);
INSERT INTO sqlbuffer.pool VALUES (1, 2.519599198092821, 13, 1.00000001, true, '\x1c6c3ff9c5e320e8', 1, 3);
INSERT INTO sqlbuffer.pool VALUES (1, 3.4748911861686596, 38, 1.00000001, true, '\x375d298266a54788', 1, 3);
INSERT INTO sqlbuffer.pool VALUES (1, 4345352.480761723, 37, 1e-08, true, '\x6cc22c4b7eebcc0d', 1, 2);
INSERT INTO sqlbuffer.pool VALUES (1, 6543256.055397687, 23, 1e-08, true, '\xa59ed409f0a25ba1', 1, 2);
INSERT INTO sqlbuffer.pool VALUES (1, 10265198.404294532, 25, 1e-08, true, '\xf635128fecd99363', 1, 2);
INSERT INTO sqlbuffer.pool VALUES (1, 45342273.304737695, 24, 1e-08, true, '\xaa75dcd714b7be09', 1, 2);
INSERT INTO sqlbuffer.pool VALUES (1, 45916379.543930076, 16, 1e-08, true, '\x4879229052501555', 1, 2);
INSERT INTO sqlbuffer.pool VALUES (1, 62576046.71189965, 18, 1e-08, true, '\xd3b7884e98547027', 1, 2);
INSERT INTO sqlbuffer.pool VALUES (1, 68821457.72858149, 40, 1e-08, true, '\x11dca2537ac662a8', 1, 2);
INSERT INTO sqlbuffer.pool VALUES (1, 108573241.05050834, 14, 1e-08, true, '\xde4214d24749adfc', 1, 2);
INSERT INTO sqlbuffer.pool VALUES (1, 109719758.44157678, 8, 1e-08, true, '\x3908b9639ff35294', 1, 2);
INSERT INTO sqlbuffer.pool VALUES (1, 125264494.18532628, 26, 1e-08, true, '\x95160840a24aea8e', 1, 2);
INSERT INTO sqlbuffer.pool VALUES (1, 334801072.6477877, 44, 1e-08, true, '\x23e9a7c8165133c9', 1, 2);
INSERT INTO sqlbuffer.pool VALUES (1, 1.4232896395485066, 1, 1.00000001, true, '\x891cf0416dbad193', 1, 3);
INSERT INTO sqlbuffer.pool VALUES (1, 1.148778622073821, 7, 1.00000001, true, '\xb23984a2e30aa3d5', 1, 3);
INSERT INTO sqlbuffer.pool VALUES (1, 1.040947633235573, 9, 1.00000001, true, '\xc810a2884800e972', 1, 3);
INSERT INTO sqlbuffer.pool VALUES (1, 1.042577965939752, 15, 1.00000001, true, '\x947ce37972109d98', 1, 3);
INSERT INTO sqlbuffer.pool VALUES (1, 1.2351511609702586, 21, 1.00000001, true, '\x6609343dd31a3306', 1, 3);
INSERT INTO sqlbuffer.pool VALUES (1, 7.846728162289916, 22, 1.00000001, true, '\x72e0ede58f441c7c', 1, 3);
INSERT INTO sqlbuffer.pool VALUES (1, 2.11262638634828, 27, 1.00000001, true, '\x791ff211d82c02b6', 1, 3);
INSERT INTO sqlbuffer.pool VALUES (1, 1.2451229460592934, 30, 1.00000001, true, '\x908ed23dfc8e3165', 1, 3);
INSERT INTO sqlbuffer.pool VALUES (1, 'Infinity', 50, NULL, false, NULL, 0, NULL);
INSERT INTO sqlbuffer.pool VALUES (2, 0.370486077283637, 55, 1.00000001, true, '\x334fe1745f2c1e3b', 1, 3);
INSERT INTO sqlbuffer.pool VALUES (2, 0.6058001582351952, 57, 1.00000001, true, '\xb23984a2e30aa3d5', 1, 3);
INSERT INTO sqlbuffer.pool VALUES (2, 0.9521513731817545, 61, 1.00000001, true, '\x6f62f21f8cdd79b7', 1, 3);
INSERT INTO sqlbuffer.pool VALUES (2, 1.3162934793273595, 52, 1.00000001, true, '\x5d1bdc79e596aff1', 1, 3);
INSERT INTO sqlbuffer.pool VALUES (2, 121046902.69104213, 58, 1e-08, true, '\x3908b9639ff35294', 1, 2);
INSERT INTO sqlbuffer.pool VALUES (2, 0.3352917067246956, 53, 1.00000001, true, '\xc89e1a9c8e4a1819', 1, 3);
INSERT INTO sqlbuffer.pool VALUES (2, 0.4309603112959978, 54, 1.00000001, true, '\xda7910f23aa95fbb', 1, 3);
INSERT INTO sqlbuffer.pool VALUES (2, 0.6595262689251867, 56, 1.00000001, true, '\xcae64ddcc4bad85a', 1, 3);
INSERT INTO sqlbuffer.pool VALUES (2, 0.7525328573743538, 60, 1.00000001, true, '\xf5178882b39840fc', 1, 3);
INSERT INTO sqlbuffer.pool VALUES (2, 'Infinity', 91, 0, false, NULL, 1, NULL);
INSERT INTO sqlbuffer.pool VALUES (2, 0.3275866814991972, 85, 1.00000001, true, '\x21ef0e1c0a1eb9d0', 1, 3);
INSERT INTO sqlbuffer.pool VALUES (2, 0.43249825631379696, 70, 1.00000001, true, '\x6b2aee8f3ffb7e0d', 1, 3);
INSERT INTO sqlbuffer.pool VALUES (2, 0.4844445768650637, 67, 1.00000001, true, '\x3eea44277f58ff86', 1, 3);
INSERT INTO sqlbuffer.pool VALUES (2, 0.5008139261700231, 72, 1.00000001, true, '\x72e0ede58f441c7c', 1, 3);
INSERT INTO sqlbuffer.pool VALUES (2, 0.5129068407880177, 69, 1.00000001, true, '\xc54f85e4f4388616', 1, 3);
INSERT INTO sqlbuffer.pool VALUES (2, 1.1908577543519567, 80, 1.00000001, true, '\x908ed23dfc8e3165', 1, 3);
INSERT INTO sqlbuffer.pool VALUES (2, 1.503241077121584, 84, 1.00000001, true, '\x67c0a14fdda280a7', 1, 3);
INSERT INTO sqlbuffer.pool VALUES (2, 1.718984405865825, 62, 1.00000001, true, '\x5ca1666369bb3c0b', 1, 3);
INSERT INTO sqlbuffer.pool VALUES (2, 1.7388612441073197, 77, 1.00000001, true, '\x791ff211d82c02b6', 1, 3);
INSERT INTO sqlbuffer.pool VALUES (2, 2.1103872955153054, 89, 1.00000001, true, '\x4bb3eb066ff5727b', 1, 3);
INSERT INTO sqlbuffer.pool VALUES (2, 5309513.718865025, 64, 1e-08, true, '\xde4214d24749adfc', 1, 2);
INSERT INTO sqlbuffer.pool VALUES (2, 10259864.712097881, 66, 1e-08, true, '\x4879229052501555', 1, 2);
INSERT INTO sqlbuffer.pool VALUES (2, 25784466.394588523, 90, 1e-08, true, '\x11dca2537ac662a8', 1, 2);
INSERT INTO sqlbuffer.pool VALUES (2, 60255216.07342979, 75, 1e-08, true, '\xf635128fecd99363', 1, 2);
INSERT INTO sqlbuffer.pool VALUES (2, 76819911.51349321, 87, 1e-08, true, '\x6cc22c4b7eebcc0d', 1, 2);
INSERT INTO sqlbuffer.pool VALUES (2, 78434382.2471738, 74, 1e-08, true, '\xaa75dcd714b7be09', 1, 2);
INSERT INTO sqlbuffer.pool VALUES (2, 83217352.44020593, 68, 1e-08, true, '\xd3b7884e98547027', 1, 2);
INSERT INTO sqlbuffer.pool VALUES (2, 154680837.7798422, 73, 1e-08, true, '\xa59ed409f0a25ba1', 1, 2);
INSERT INTO sqlbuffer.pool VALUES (2, 225306833.8371254, 94, 1e-08, true, '\x23e9a7c8165133c9', 1, 2);
INSERT INTO sqlbuffer.pool VALUES (2, 505903474.743641, 76, 1e-08, true, '\x95160840a24aea8e', 1, 2);
INSERT INTO sqlbuffer.pool VALUES (2, 1.798417008523006, 51, 1.00000001, true, '\x891cf0416dbad193', 2, 3);
INSERT INTO sqlbuffer.pool VALUES (2, 3.396804592571273, 86, 1.00000001, true, '\x18802ea60ab55d1e', 2, 3);
INSERT INTO sqlbuffer.pool VALUES (2, 0.33885405831121906, 63, 1.00000001, true, '\x1c6c3ff9c5e320e8', 2, 3);
INSERT INTO sqlbuffer.pool VALUES (2, 0.969733725687376, 79, 1.00000001, true, '\x3c7faed901f068e2', 2, 3);
INSERT INTO sqlbuffer.pool VALUES (2, 0.9789597369371861, 71, 1.00000001, true, '\x6609343dd31a3306', 2, 3);
INSERT INTO sqlbuffer.pool VALUES (2, 1.8712228735653242, 65, 1.00000001, true, '\x947ce37972109d98', 3, 3);
INSERT INTO sqlbuffer.pool VALUES (2, 2.0499109873481745, 83, 1.00000001, true, '\x3913c8451eddecad', 2, 3);
INSERT INTO sqlbuffer.pool VALUES (2, 1.4201379014636715, 59, 1.00000001, true, '\xc810a2884800e972', 2, 3);
INSERT INTO sqlbuffer.pool VALUES (2, 1.1468320417202251, 81, 1.00000001, true, '\xf4cea2034993e70b', 1, 3);
INSERT INTO sqlbuffer.pool VALUES (2, 0.9862991638918531, 82, 1.00000001, true, '\xe4d86233652356b9', 1, 3);
INSERT INTO sqlbuffer.pool VALUES (2, 0.7262600124686954, 92, 4.00000001, true, '\x600ce7bb0809aa4e', 1, 6);
INSERT INTO sqlbuffer.pool VALUES (2, 'Infinity', 100, NULL, false, NULL, 0, NULL);
INSERT INTO sqlbuffer.pool VALUES (2, 0.3728729207859658, 93, 8.00000001, true, '\x352df4c843dbc868', 5, 10);
INSERT INTO sqlbuffer.pool VALUES (2, 0.6548044264193065, 88, 1.00000001, true, '\x375d298266a54788', 2, 3);
INSERT INTO sqlbuffer.pool VALUES (2, 0.32827215414497596, 95, 8.00000001, true, '\x3ba000b767b3123f', 6, 10);
INSERT INTO sqlbuffer.pool VALUES (2, 1.9480232927974301, 78, 1.00000001, true, '\x505b1a0bd347d050', 2, 3);
INSERT INTO sqlbuffer.predictors VALUES (1, 1, 3, '\x78000000000000007b2262696173223a7b226474797065223a22463332222c227368617065223a5b315d2c22646174615f6f666673657473223a5b302c345d7d2c22776569676874223a7b226474797065223a22463332222c227368617065223a5b312c315d2c22646174615f6f666673657473223a5b342c385d7d7d20202070d7093fc8cab3bb', 6, 34.10130310058594, 7.140567779541016, '{"epochs": 2, "seconds": 0.043869945002370514, "calibration": [{"rows": 1, "measured": 3.0, "predicted": 0.5055226683616638}, {"rows": 1, "measured": 4.0, "predicted": 0.5219830870628357}, {"rows": 1, "measured": 2.0, "predicted": 0.5219830870628357}, {"rows": 1, "measured": 4.0, "predicted": 0.5219830870628357}, {"rows": 1, "measured": 3.0, "predicted": 0.5219830870628357}], "valid_rank_correlation": "NaN"}', '2026-11-30 20:46:52.62596+00', 'vm-17770-95f31747', 5, 0.18633899812498247, -12.835972238265136, 15);
INSERT INTO sqlbuffer.predictors VALUES (2, 1, 3, '\x78000000000000007b2262696173223a7b226474797065223a22463332222c227368617065223a5b315d2c22646174615f6f666673657473223a5b302c345d7d2c22776569676874223a7b226474797065223a22463332222c227368617065223a5b312c315d2c22646174615f6f666673657473223a5b342c385d7d7d202020dd253cbf987652bf', 8, 63.681745529174805, NULL, '{"epochs": 2, "seconds": 0.03257403400493786, "calibration": [{"rows": 1, "measured": 4.0, "predicted": -3.2013189792633057}, {"rows": 1, "measured": 4.0, "predicted": -3.2013189792633057}], "valid_rank_correlation": "NaN"}', '2026-11-30 20:46:53.982866+00', 'vm-17770-95f31747', 2, NULL, NULL, 15);
INSERT INTO sqlbuffer.receipts VALUES ('f87df800b6f31b9f', 28, '2026-11-30 20:46:52.806982+00');
INSERT INTO sqlbuffer.receipts VALUES ('7175835045f5edff', 1, '2026-11-30 20:46:53.033226+00');
INSERT INTO sqlbuffer.receipts VALUES ('d42ca014d7d01128', 28, '2026-11-30 20:46:54.365658+00');
INSERT INTO sqlbuffer.receipts VALUES ('b96cd190f63bc738', 1, '2026-11-30 20:46:54.555605+00');
INSERT INTO sqlbuffer.samples VALUES (8, 1, '\x25e68adcf845946f3908b9639ff35294', 's3', NULL, 'text', 'generated', NULL, true, 0, 2, 0, '2026-11-30 20:46:52.1113+00', NULL, NULL, '2026-11-30 20:46:51.73465+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (13, 1, '\x48357fba8f1544bb1c6c3ff9c5e320e8', 's14', NULL, 'text', 'generated', NULL, true, 0, 3, 0, '2026-11-30 20:46:52.111307+00', NULL, NULL, '2026-11-30 20:46:51.734669+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (14, 1, '\x4b0f27f800694018de4214d24749adfc', 's5', NULL, 'text', 'generated', NULL, true, 0, 2, 0, '2026-11-30 20:46:52.111308+00', NULL, NULL, '2026-11-30 20:46:51.734672+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (4, 1, '\x0eb87c9deb49f479da7910f23aa95fbb', 's19', NULL, 'text', 'generated', NULL, false, 0, 3, 0, '2026-11-30 20:46:52.111285+00', 4, '2026-11-30 20:46:52.24536+00', '2026-11-30 20:46:51.734635+00', 0, 1, 3, 5, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (5, 1, '\x12778fac998b6391334fe1745f2c1e3b', 's35', NULL, 'text', 'generated', NULL, false, 0, 3, 0, '2026-11-30 20:46:52.111295+00', 3, '2026-11-30 20:46:52.314038+00', '2026-11-30 20:46:51.734639+00', 0, 1, 3, 7, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (10, 1, '\x31d71d595191ced4f5178882b39840fc', 's32', NULL, 'text', 'generated', NULL, false, 0, 3, 0, '2026-11-30 20:46:52.111303+00', NULL, '2026-11-30 20:46:52.314067+00', '2026-11-30 20:46:51.734658+00', 0, 1, 3, 7, 'the reward is None', 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (11, 1, '\x3830c7d3a51ab68e6f62f21f8cdd79b7', 's31', NULL, 'text', 'generated', NULL, false, 0, 3, 0, '2026-11-30 20:46:52.111304+00', 4, '2026-11-30 20:46:52.314072+00', '2026-11-30 20:46:51.734662+00', 0, 1, 3, 7, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (12, 1, '\x3bbe006bffe9581f5ca1666369bb3c0b', 's27', NULL, 'text', 'generated', NULL, false, 0, 3, 0, '2026-11-30 20:46:52.111305+00', 2, '2026-11-30 20:46:52.31408+00', '2026-11-30 20:46:51.734665+00', 0, 1, 3, 7, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (2, 1, '\x0cdc385320e1e5fb5d1bdc79e596aff1', 's10', NULL, 'text', 'generated', NULL, false, 0, 3, 0, '2026-11-30 20:46:52.111281+00', 4, '2026-11-30 20:46:52.350254+00', '2026-11-30 20:46:51.734621+00', 0, 1, 3, 9, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (3, 1, '\x0d8360399ce27ce9c89e1a9c8e4a1819', 's16', NULL, 'text', 'generated', NULL, false, 0, 3, 0, '2026-11-30 20:46:52.111284+00', 2, '2026-11-30 20:46:52.350282+00', '2026-11-30 20:46:51.73463+00', 0, 1, 3, 9, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (6, 1, '\x159403cce5ce60abcae64ddcc4bad85a', 's36', NULL, 'text', 'generated', NULL, false, 0, 3, 0, '2026-11-30 20:46:52.111296+00', NULL, '2026-11-30 20:46:52.35029+00', '2026-11-30 20:46:51.734643+00', 0, 1, 3, 9, 'the reward is NaN', 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (1, 1, '\x0907e332f2bd01a7891cf0416dbad193', 's20', NULL, 'text', 'generated', NULL, true, 0, 3, 1, '2026-11-30 20:46:52.700494+00', NULL, NULL, '2026-11-30 20:46:51.734471+00', 0, 1, 16, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (7, 1, '\x2406bded0c6de8f9b23984a2e30aa3d5', 's34', NULL, 'text', 'generated', NULL, true, 0, 3, 1, '2026-11-30 20:46:52.700507+00', NULL, NULL, '2026-11-30 20:46:51.734646+00', 0, 1, 16, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (9, 1, '\x2660151e0dfb090dc810a2884800e972', 's12', NULL, 'text', 'generated', NULL, true, 0, 3, 1, '2026-11-30 20:46:52.70051+00', NULL, NULL, '2026-11-30 20:46:51.734654+00', 0, 1, 16, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (15, 1, '\x4e04030b262a0f5f947ce37972109d98', 's25', NULL, 'text', 'generated', NULL, true, 0, 3, 1, '2026-11-30 20:46:52.700513+00', NULL, NULL, '2026-11-30 20:46:51.734675+00', 0, 1, 16, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (17, 1, '\x5e98966e95d3a2c83eea44277f58ff86', 's17', NULL, 'text', 'generated', NULL, true, 0, 3, 0, '2026-11-30 20:46:52.111325+00', NULL, NULL, '2026-11-30 20:46:51.73469+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (18, 1, '\x5f25bc4303e12b7ed3b7884e98547027', 's2', NULL, 'text', 'generated', NULL, true, 0, 2, 0, '2026-11-30 20:46:52.11133+00', NULL, NULL, '2026-11-30 20:46:51.734694+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (23, 1, '\x77465f5140d1083ba59ed409f0a25ba1', 's7', NULL, 'text', 'generated', NULL, true, 0, 2, 0, '2026-11-30 20:46:52.111354+00', NULL, NULL, '2026-11-30 20:46:51.734714+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (24, 1, '\x79639c3f2c6365c8aa75dcd714b7be09', 's0', NULL, 'text', 'generated', NULL, true, 0, 2, 0, '2026-11-30 20:46:52.111358+00', NULL, NULL, '2026-11-30 20:46:51.734717+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (25, 1, '\x7bebade95985177df635128fecd99363', 's4', NULL, 'text', 'generated', NULL, true, 0, 2, 0, '2026-11-30 20:46:52.111362+00', NULL, NULL, '2026-11-30 20:46:51.734721+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (26, 1, '\x7e8cd06cb6f980a295160840a24aea8e', 's8', NULL, 'text', 'generated', NULL, true, 0, 2, 0, '2026-11-30 20:46:52.111366+00', NULL, NULL, '2026-11-30 20:46:51.734724+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (28, 1, '\x8ce36007e27bc067505b1a0bd347d050', 's15', NULL, 'text', 'generated', NULL, true, 0, 3, 0, '2026-11-30 20:46:52.111373+00', NULL, NULL, '2026-11-30 20:46:51.734731+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (29, 1, '\x93c799bb6b61170a3c7faed901f068e2', 's30', NULL, 'text', 'generated', NULL, true, 0, 3, 0, '2026-11-30 20:46:52.111377+00', NULL, NULL, '2026-11-30 20:46:51.734735+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (35, 1, '\xbc778e03f9129cc921ef0e1c0a1eb9d0', 's22', NULL, 'text', 'generated', NULL, true, 0, 3, 0, '2026-11-30 20:46:52.111403+00', NULL, NULL, '2026-11-30 20:46:51.734756+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (31, 1, '\x9a56624baf043897f4cea2034993e70b', 's13', NULL, 'text', 'generated', NULL, false, 0, 3, 0, '2026-11-30 20:46:52.111385+00', NULL, '2026-11-30 20:46:52.314087+00', '2026-11-30 20:46:51.734741+00', 0, 1, 3, 7, 'the reward is NaN', 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (32, 1, '\x9ff1872b043115c6e4d86233652356b9', 's26', NULL, 'text', 'generated', NULL, false, 0, 3, 0, '2026-11-30 20:46:52.111388+00', NULL, '2026-11-30 20:46:52.350295+00', '2026-11-30 20:46:51.734745+00', 0, 1, 3, 9, 'the reward is None', 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (34, 1, '\xb4e1f6e247d0413667c0a14fdda280a7', 's24', NULL, 'text', 'generated', NULL, false, 0, 3, 0, '2026-11-30 20:46:52.111399+00', 3, '2026-11-30 20:46:52.350299+00', '2026-11-30 20:46:51.734753+00', 0, 1, 3, 9, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (16, 1, '\x4fbcf5a9dc27fda64879229052501555', 's1', NULL, 'text', 'generated', NULL, true, 0, 2, 0, '2026-11-30 20:46:52.111311+00', 8, '2026-11-30 20:46:52.400223+00', '2026-11-30 20:46:51.734678+00', 0, 1, 3, 11, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (19, 1, '\x63f654e26ba88995c54f85e4f4388616', 's29', NULL, 'text', 'generated', NULL, true, 0, 3, 1, '2026-11-30 20:46:52.700516+00', NULL, NULL, '2026-11-30 20:46:51.734698+00', 0, 1, 16, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (20, 1, '\x6784c480f21ceb096b2aee8f3ffb7e0d', 's28', NULL, 'text', 'generated', NULL, true, 0, 3, 1, '2026-11-30 20:46:52.700519+00', NULL, NULL, '2026-11-30 20:46:51.734702+00', 0, 1, 16, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (21, 1, '\x6d2e23be529b5e756609343dd31a3306', 's23', NULL, 'text', 'generated', NULL, true, 0, 3, 1, '2026-11-30 20:46:52.700521+00', NULL, NULL, '2026-11-30 20:46:51.734706+00', 0, 1, 16, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (22, 1, '\x71fdcb77a31c9ffe72e0ede58f441c7c', 's21', NULL, 'text', 'generated', NULL, true, 0, 3, 1, '2026-11-30 20:46:52.700523+00', NULL, NULL, '2026-11-30 20:46:51.73471+00', 0, 1, 16, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (27, 1, '\x81be9c2241ccfeb9791ff211d82c02b6', 's18', NULL, 'text', 'generated', NULL, true, 0, 3, 1, '2026-11-30 20:46:52.700526+00', NULL, NULL, '2026-11-30 20:46:51.734728+00', 0, 1, 16, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (30, 1, '\x952d06c5a93a3880908ed23dfc8e3165', 's11', NULL, 'text', 'generated', NULL, true, 0, 3, 1, '2026-11-30 20:46:52.700528+00', NULL, NULL, '2026-11-30 20:46:51.734738+00', 0, 1, 16, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (36, 1, '\xc735b4d373a7586618802ea60ab55d1e', 's33', NULL, 'text', 'generated', NULL, false, 0, 3, 0, '2026-11-30 20:46:52.111407+00', 0.5, '2026-11-30 20:46:52.796379+00', '2026-11-30 20:46:51.73476+00', 0, 1, 3, 20, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (37, 1, '\xe06da5c74348259f6cc22c4b7eebcc0d', 's6', NULL, 'text', 'generated', NULL, true, 0, 2, 0, '2026-11-30 20:46:52.11141+00', NULL, NULL, '2026-11-30 20:46:51.734764+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (38, 1, '\xe141cb5795304318375d298266a54788', 's37', NULL, 'text', 'generated', NULL, true, 0, 3, 0, '2026-11-30 20:46:52.111454+00', NULL, NULL, '2026-11-30 20:46:51.734767+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (39, 1, '\xe6645e14914c9aaa4bb3eb066ff5727b', 's38', NULL, 'text', 'generated', NULL, true, 0, 3, 0, '2026-11-30 20:46:52.111458+00', NULL, NULL, '2026-11-30 20:46:51.734771+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (40, 1, '\xffdfee9e483e0d8111dca2537ac662a8', 's9', NULL, 'text', 'generated', NULL, true, 0, 2, 0, '2026-11-30 20:46:52.111462+00', NULL, NULL, '2026-11-30 20:46:51.734774+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (41, 1, '\x03ca21011423ea1eb88919ef43e973a3', 'None', '\xf6', 'cbor', 'mixed', '{"note": "mixed"}', true, 0, NULL, 0, '2026-11-30 20:46:52.111466+00', NULL, NULL, '2026-11-30 20:46:51.909908+00', 0, 2, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (44, 1, '\xa7613f96455fc9d323e9a7c8165133c9', '''é\x00''', '\x63c3a900', 'cbor', 'mixed', '{"note": "mixed"}', true, 0, 2, 0, '2026-11-30 20:46:52.111482+00', NULL, NULL, '2026-11-30 20:46:51.909962+00', 0, 2, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (33, 1, '\xa75ba9f01640e5963913c8451eddecad', 's39', NULL, 'text', 'generated', NULL, false, 0, 3, 0, '2026-11-30 20:46:52.111394+00', 2, '2026-11-30 20:46:52.245448+00', '2026-11-30 20:46:51.734749+00', 0, 1, 3, 5, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (42, 1, '\x05fc3d100167ed75600ce7bb0809aa4e', '(1, 2)', '\xd81b83657475706c650102', 'cbor', 'mixed', '{"note": "mixed"}', false, 0, 6, 0, '2026-11-30 20:46:52.111471+00', 3, '2026-11-30 20:46:52.245462+00', '2026-11-30 20:46:51.909947+00', 0, 2, 3, 5, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (43, 1, '\x5218a6fb241a26ba352df4c843dbc868', '{''a'': 1.5}', '\xa16161fb3ff8000000000000', 'cbor', 'mixed', '{"note": "mixed"}', false, 0, 10, 0, '2026-11-30 20:46:52.111477+00', NULL, '2026-11-30 20:46:52.24547+00', '2026-11-30 20:46:51.909956+00', 0, 2, 3, 5, 'the reward is NaN', 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (45, 1, '\xb62723d2f3a4251c3ba000b767b3123f', 'ndarray(float64, (3,): 0 1 2)', '\xd81b8465617272617967666c6f61743634810358180000000000000000000000000000f03f0000000000000040', 'cbor', 'mixed', '{"note": "mixed"}', false, 0, 10, 0, '2026-11-30 20:46:52.111486+00', NULL, '2026-11-30 20:46:52.245474+00', '2026-11-30 20:46:51.909968+00', 0, 2, 3, 5, 'the reward is None', 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (48, 1, '\x4d6ba448ce388f0a7cc1c381ce039a71', 'known', NULL, 'text', 'literature', NULL, false, 0, NULL, NULL, NULL, 9, '2026-11-30 20:46:52.40025+00', '2026-11-30 20:46:52.392052+00', 3, 11, NULL, 11, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (50, 1, '\x674a7941811b1ca545bbe4917a8aa538', 'unscored', NULL, 'text', '', NULL, true, 0, NULL, NULL, NULL, NULL, NULL, '2026-11-30 20:46:52.749821+00', 3, 18, NULL, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (52, 2, '\x0cdc385320e1e5fb5d1bdc79e596aff1', 's10', NULL, 'text', 'generated', NULL, true, 0, 3, 0, '2026-11-30 20:46:53.376084+00', NULL, NULL, '2026-11-30 20:46:53.276831+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (55, 2, '\x12778fac998b6391334fe1745f2c1e3b', 's35', NULL, 'text', 'generated', NULL, true, 0, 3, 0, '2026-11-30 20:46:53.37609+00', NULL, NULL, '2026-11-30 20:46:53.276857+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (51, 2, '\x0907e332f2bd01a7891cf0416dbad193', 's20', NULL, 'text', 'generated', NULL, true, 0, 3, 0, '2026-11-30 20:46:53.376073+00', 4, '2026-11-30 20:46:53.496553+00', '2026-11-30 20:46:53.276755+00', 0, 1, 3, 5, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (53, 2, '\x0d8360399ce27ce9c89e1a9c8e4a1819', 's16', NULL, 'text', 'generated', NULL, true, 0, 3, 1, '2026-11-30 20:46:54.03795+00', NULL, NULL, '2026-11-30 20:46:53.276838+00', 0, 1, 16, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (54, 2, '\x0eb87c9deb49f479da7910f23aa95fbb', 's19', NULL, 'text', 'generated', NULL, true, 0, 3, 1, '2026-11-30 20:46:54.037967+00', NULL, NULL, '2026-11-30 20:46:53.276853+00', 0, 1, 16, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (94, 2, '\xa7613f96455fc9d323e9a7c8165133c9', '''é\x00''', '\x63c3a900', 'cbor', 'mixed', '{"note": "mixed"}', true, 0, 2, 0, '2026-11-30 20:46:53.376369+00', NULL, NULL, '2026-11-30 20:46:53.315079+00', 0, 2, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (57, 2, '\x2406bded0c6de8f9b23984a2e30aa3d5', 's34', NULL, 'text', 'generated', NULL, true, 0, 3, 0, '2026-11-30 20:46:53.376108+00', NULL, NULL, '2026-11-30 20:46:53.276866+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (58, 2, '\x25e68adcf845946f3908b9639ff35294', 's3', NULL, 'text', 'generated', NULL, true, 0, 2, 0, '2026-11-30 20:46:53.376114+00', NULL, NULL, '2026-11-30 20:46:53.27687+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (61, 2, '\x3830c7d3a51ab68e6f62f21f8cdd79b7', 's31', NULL, 'text', 'generated', NULL, true, 0, 3, 0, '2026-11-30 20:46:53.376127+00', NULL, NULL, '2026-11-30 20:46:53.276883+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (56, 2, '\x159403cce5ce60abcae64ddcc4bad85a', 's36', NULL, 'text', 'generated', NULL, true, 0, 3, 1, '2026-11-30 20:46:54.037973+00', NULL, NULL, '2026-11-30 20:46:53.276862+00', 0, 1, 16, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (59, 2, '\x2660151e0dfb090dc810a2884800e972', 's12', NULL, 'text', 'generated', NULL, true, 0, 3, 1, '2026-11-30 20:46:54.037977+00', 4, '2026-11-30 20:46:53.570408+00', '2026-11-30 20:46:53.276873+00', 0, 1, 16, 7, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (60, 2, '\x31d71d595191ced4f5178882b39840fc', 's32', NULL, 'text', 'generated', NULL, true, 0, 3, 1, '2026-11-30 20:46:54.037982+00', NULL, NULL, '2026-11-30 20:46:53.276878+00', 0, 1, 16, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (92, 2, '\x05fc3d100167ed75600ce7bb0809aa4e', '(1, 2)', '\xd81b83657475706c650102', 'cbor', 'mixed', '{"note": "mixed"}', true, 0, 6, 1, '2026-11-30 20:46:54.037996+00', NULL, NULL, '2026-11-30 20:46:53.315022+00', 0, 2, 16, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (95, 2, '\xb62723d2f3a4251c3ba000b767b3123f', 'ndarray(float64, (3,): 0 1 2)', '\xd81b8465617272617967666c6f61743634810358180000000000000000000000000000f03f0000000000000040', 'cbor', 'mixed', '{"note": "mixed"}', true, 0, 10, 1, '2026-11-30 20:46:54.038007+00', NULL, '2026-11-30 20:46:53.709582+00', '2026-11-30 20:46:53.315085+00', 0, 2, 16, 9, 'the reward is None', 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (93, 2, '\x5218a6fb241a26ba352df4c843dbc868', '{''a'': 1.5}', '\xa16161fb3ff8000000000000', 'cbor', 'mixed', '{"note": "mixed"}', true, 0, 10, 1, '2026-11-30 20:46:54.038001+00', 0.5, '2026-11-30 20:46:54.311945+00', '2026-11-30 20:46:53.315073+00', 0, 2, 16, 20, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (62, 2, '\x3bbe006bffe9581f5ca1666369bb3c0b', 's27', NULL, 'text', 'generated', NULL, true, 0, 3, 0, '2026-11-30 20:46:53.376131+00', NULL, NULL, '2026-11-30 20:46:53.276887+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (64, 2, '\x4b0f27f800694018de4214d24749adfc', 's5', NULL, 'text', 'generated', NULL, true, 0, 2, 0, '2026-11-30 20:46:53.376191+00', NULL, NULL, '2026-11-30 20:46:53.276894+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (67, 2, '\x5e98966e95d3a2c83eea44277f58ff86', 's17', NULL, 'text', 'generated', NULL, true, 0, 3, 0, '2026-11-30 20:46:53.376204+00', NULL, NULL, '2026-11-30 20:46:53.276906+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (68, 2, '\x5f25bc4303e12b7ed3b7884e98547027', 's2', NULL, 'text', 'generated', NULL, true, 0, 2, 0, '2026-11-30 20:46:53.376209+00', NULL, NULL, '2026-11-30 20:46:53.27691+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (69, 2, '\x63f654e26ba88995c54f85e4f4388616', 's29', NULL, 'text', 'generated', NULL, true, 0, 3, 0, '2026-11-30 20:46:53.376213+00', NULL, NULL, '2026-11-30 20:46:53.276914+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (70, 2, '\x6784c480f21ceb096b2aee8f3ffb7e0d', 's28', NULL, 'text', 'generated', NULL, true, 0, 3, 0, '2026-11-30 20:46:53.376217+00', NULL, NULL, '2026-11-30 20:46:53.276918+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (72, 2, '\x71fdcb77a31c9ffe72e0ede58f441c7c', 's21', NULL, 'text', 'generated', NULL, true, 0, 3, 0, '2026-11-30 20:46:53.376224+00', NULL, NULL, '2026-11-30 20:46:53.276927+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (73, 2, '\x77465f5140d1083ba59ed409f0a25ba1', 's7', NULL, 'text', 'generated', NULL, true, 0, 2, 0, '2026-11-30 20:46:53.376228+00', NULL, NULL, '2026-11-30 20:46:53.27693+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (74, 2, '\x79639c3f2c6365c8aa75dcd714b7be09', 's0', NULL, 'text', 'generated', NULL, true, 0, 2, 0, '2026-11-30 20:46:53.376233+00', NULL, NULL, '2026-11-30 20:46:53.276934+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (75, 2, '\x7bebade95985177df635128fecd99363', 's4', NULL, 'text', 'generated', NULL, true, 0, 2, 0, '2026-11-30 20:46:53.376238+00', NULL, NULL, '2026-11-30 20:46:53.276938+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (76, 2, '\x7e8cd06cb6f980a295160840a24aea8e', 's8', NULL, 'text', 'generated', NULL, true, 0, 2, 0, '2026-11-30 20:46:53.376241+00', NULL, NULL, '2026-11-30 20:46:53.276941+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (77, 2, '\x81be9c2241ccfeb9791ff211d82c02b6', 's18', NULL, 'text', 'generated', NULL, true, 0, 3, 0, '2026-11-30 20:46:53.376245+00', NULL, NULL, '2026-11-30 20:46:53.276945+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (78, 2, '\x8ce36007e27bc067505b1a0bd347d050', 's15', NULL, 'text', 'generated', NULL, true, 0, 3, 0, '2026-11-30 20:46:53.376249+00', NULL, NULL, '2026-11-30 20:46:53.276948+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (80, 2, '\x952d06c5a93a3880908ed23dfc8e3165', 's11', NULL, 'text', 'generated', NULL, true, 0, 3, 0, '2026-11-30 20:46:53.376257+00', NULL, NULL, '2026-11-30 20:46:53.276956+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (84, 2, '\xb4e1f6e247d0413667c0a14fdda280a7', 's24', NULL, 'text', 'generated', NULL, true, 0, 3, 0, '2026-11-30 20:46:53.376332+00', NULL, NULL, '2026-11-30 20:46:53.276971+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (85, 2, '\xbc778e03f9129cc921ef0e1c0a1eb9d0', 's22', NULL, 'text', 'generated', NULL, true, 0, 3, 0, '2026-11-30 20:46:53.376336+00', NULL, NULL, '2026-11-30 20:46:53.276976+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (87, 2, '\xe06da5c74348259f6cc22c4b7eebcc0d', 's6', NULL, 'text', 'generated', NULL, true, 0, 2, 0, '2026-11-30 20:46:53.376343+00', NULL, NULL, '2026-11-30 20:46:53.276983+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (88, 2, '\xe141cb5795304318375d298266a54788', 's37', NULL, 'text', 'generated', NULL, true, 0, 3, 0, '2026-11-30 20:46:53.376347+00', NULL, NULL, '2026-11-30 20:46:53.276987+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (89, 2, '\xe6645e14914c9aaa4bb3eb066ff5727b', 's38', NULL, 'text', 'generated', NULL, true, 0, 3, 0, '2026-11-30 20:46:53.37635+00', NULL, NULL, '2026-11-30 20:46:53.27699+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (90, 2, '\xffdfee9e483e0d8111dca2537ac662a8', 's9', NULL, 'text', 'generated', NULL, true, 0, 2, 0, '2026-11-30 20:46:53.376354+00', NULL, NULL, '2026-11-30 20:46:53.276994+00', 0, 1, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (91, 2, '\x03ca21011423ea1eb88919ef43e973a3', 'None', '\xf6', 'cbor', 'mixed', '{"note": "mixed"}', true, 0, NULL, 0, '2026-11-30 20:46:53.376358+00', NULL, NULL, '2026-11-30 20:46:53.314987+00', 0, 2, 3, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (86, 2, '\xc735b4d373a7586618802ea60ab55d1e', 's33', NULL, 'text', 'generated', NULL, true, 0, 3, 0, '2026-11-30 20:46:53.37634+00', 2, '2026-11-30 20:46:53.496594+00', '2026-11-30 20:46:53.276979+00', 0, 1, 3, 5, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (63, 2, '\x48357fba8f1544bb1c6c3ff9c5e320e8', 's14', NULL, 'text', 'generated', NULL, true, 0, 3, 0, '2026-11-30 20:46:53.376184+00', 3, '2026-11-30 20:46:53.570438+00', '2026-11-30 20:46:53.276891+00', 0, 1, 3, 7, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (79, 2, '\x93c799bb6b61170a3c7faed901f068e2', 's30', NULL, 'text', 'generated', NULL, true, 0, 3, 0, '2026-11-30 20:46:53.376253+00', 2, '2026-11-30 20:46:53.570448+00', '2026-11-30 20:46:53.276952+00', 0, 1, 3, 7, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (71, 2, '\x6d2e23be529b5e756609343dd31a3306', 's23', NULL, 'text', 'generated', NULL, true, 0, 3, 0, '2026-11-30 20:46:53.37622+00', 4, '2026-11-30 20:46:53.694858+00', '2026-11-30 20:46:53.276922+00', 0, 1, 3, 9, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (83, 2, '\xa75ba9f01640e5963913c8451eddecad', 's39', NULL, 'text', 'generated', NULL, true, 0, 3, 0, '2026-11-30 20:46:53.376324+00', 2, '2026-11-30 20:46:53.694887+00', '2026-11-30 20:46:53.276967+00', 0, 1, 3, 9, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (65, 2, '\x4e04030b262a0f5f947ce37972109d98', 's25', NULL, 'text', 'generated', NULL, true, 0, 3, 0, '2026-11-30 20:46:53.376196+00', 3, '2026-11-30 20:46:53.709559+00', '2026-11-30 20:46:53.276898+00', 0, 1, 3, 9, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (66, 2, '\x4fbcf5a9dc27fda64879229052501555', 's1', NULL, 'text', 'generated', NULL, true, 0, 2, 0, '2026-11-30 20:46:53.3762+00', 8, '2026-11-30 20:46:53.778452+00', '2026-11-30 20:46:53.276902+00', 0, 1, 3, 11, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (98, 2, '\x4d6ba448ce388f0a7cc1c381ce039a71', 'known', NULL, 'text', 'literature', NULL, false, 0, NULL, NULL, NULL, 9, '2026-11-30 20:46:53.778483+00', '2026-11-30 20:46:53.766866+00', 3, 11, NULL, 11, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (81, 2, '\x9a56624baf043897f4cea2034993e70b', 's13', NULL, 'text', 'generated', NULL, true, 0, 3, 1, '2026-11-30 20:46:54.037987+00', NULL, NULL, '2026-11-30 20:46:53.27696+00', 0, 1, 16, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (82, 2, '\x9ff1872b043115c6e4d86233652356b9', 's26', NULL, 'text', 'generated', NULL, true, 0, 3, 1, '2026-11-30 20:46:54.037991+00', NULL, NULL, '2026-11-30 20:46:53.276963+00', 0, 1, 16, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.samples VALUES (100, 2, '\x674a7941811b1ca545bbe4917a8aa538', 'unscored', NULL, 'text', '', NULL, true, 0, NULL, NULL, NULL, NULL, NULL, '2026-11-30 20:46:54.218279+00', 3, 18, NULL, NULL, NULL, 0, false, NULL);
INSERT INTO sqlbuffer.sqlbuffer_version VALUES ('0008');
INSERT INTO sqlbuffer.workers VALUES (1, 'ledger', '', 0, 0, '2026-11-30 20:46:51.621624+00', '2026-11-30 20:46:51.621624+00', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, 0);
INSERT INTO sqlbuffer.workers VALUES (2, 'vm-17770-95f31747', 'vm/469657c8#5.7714068811209557928', 17770, 1796071585.44, '2026-11-30 20:46:53.298847+00', '2026-11-30 20:46:54.398442+00', 0.3227838995336634, 5, 3, 46, 1, 0, 24, 16, 4, 0, 0, 1, 1, 11, 1, 21, '2026-11-30 20:46:54.566029+00', 0.1610841320688508);
INSERT INTO sqlbuffer.workers VALUES (1, 'vm-17770-95f31747', 'vm/469657c8#5.7714068811209557928', 17770, 1796071585.44, '2026-11-30 20:46:51.757882+00', '2026-11-30 20:46:52.821303+00', 0.905724848136697, 5, 3, 46, 1, 0, 24, 16, 4, 0, 0, 1, 1, 12, 6, 21, '2026-11-30 20:46:53.062146+00', 0.4916414195715166);
INSERT INTO sqlbuffer.workers VALUES (2, 'ledger', '', 0, 0, '2026-11-30 20:46:53.153985+00', '2026-11-30 20:46:53.153985+00', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, 0);
SELECT pg_catalog.setval('sqlbuffer.batches_id_seq', 12, true);
SELECT pg_catalog.setval('sqlbuffer.buffers_id_seq', 2, true);
SELECT pg_catalog.setval('sqlbuffer.measurements_id_seq', 36, true);
SELECT pg_catalog.setval('sqlbuffer.samples_id_seq', 100, true);
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
ALTER TABLE ONLY sqlbuffer.lineage
    ADD CONSTRAINT lineage_pkey PRIMARY KEY (id);
ALTER TABLE ONLY sqlbuffer.measurements
    ADD CONSTRAINT measurements_pkey PRIMARY KEY (id);
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
CREATE INDEX ix_batches_released ON sqlbuffer.batches USING btree (buffer_id, clock) WHERE (released_at IS NOT NULL);
CREATE INDEX ix_batches_token ON sqlbuffer.batches USING btree (token) WHERE (token IS NOT NULL);
CREATE INDEX ix_measurements_sample ON sqlbuffer.measurements USING btree (sample_id);
CREATE INDEX ix_pool_top ON sqlbuffer.pool USING btree (buffer_id, score, tie, sample_id) WHERE (top = true);
CREATE INDEX ix_pool_unscored ON sqlbuffer.pool USING btree (buffer_id, sample_id) WHERE (weight IS NULL);
CREATE INDEX ix_samples_reward ON sqlbuffer.samples USING btree (buffer_id, reward) WHERE (reward IS NOT NULL);
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
