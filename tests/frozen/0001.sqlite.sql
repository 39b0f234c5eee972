BEGIN TRANSACTION;
CREATE TABLE batches (
	id INTEGER NOT NULL, 
	buffer_id INTEGER NOT NULL, 
	worker_id TEXT NOT NULL, 
	iteration INTEGER NOT NULL, 
	size INTEGER NOT NULL, 
	clock_before DOUBLE NOT NULL, 
	clock DOUBLE NOT NULL, 
	drawn_at TEXT NOT NULL, 
	settled_at TEXT, 
	released_at TEXT, 
	PRIMARY KEY (id)
);
INSERT INTO "batches" VALUES(1,1,'vm-4612-2164bc4d',0,5,0.0,1.97950038155354259006e-02,'2026-11-28T06:25:39.453+00:00','2026-11-28T06:25:39.456+00:00',NULL);
INSERT INTO "batches" VALUES(2,1,'vm-4612-2164bc4d',1,4,1.97950038155354259006e-02,4.91641423996289281261e-02,'2026-11-28T06:25:40.940+00:00',NULL,NULL);
CREATE TABLE buffers (
	id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	mode TEXT NOT NULL, 
	seed TEXT NOT NULL, 
	base_score DOUBLE, 
	top_weight DOUBLE, 
	score_version INTEGER NOT NULL, 
	refresh_version INTEGER NOT NULL, 
	refreshed_version INTEGER NOT NULL, 
	settings JSON NOT NULL, 
	created_at TEXT NOT NULL, 
	PRIMARY KEY (id), 
	CONSTRAINT ck_buffers_mode CHECK (mode IN ('consume', 'replay')), 
	CONSTRAINT uq_buffers_name UNIQUE (name)
);
INSERT INTO "buffers" VALUES(1,'old','shift','consume','7',0.0,0.0,1,0,0,'{"weighting": {"name": "shift"}}','2026-11-28T06:25:39.414+00:00');
CREATE TABLE checkpoints (
	buffer_id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	iteration INTEGER NOT NULL, 
	data BLOB NOT NULL, 
	created_at TEXT NOT NULL, 
	PRIMARY KEY (buffer_id, name, iteration), 
	CONSTRAINT fk_checkpoints_buffer_id FOREIGN KEY(buffer_id) REFERENCES buffers (id)
);
INSERT INTO "checkpoints" VALUES(1,'loop',1,X'7B2273697A65223A2031387D','2026-11-28T06:25:39.461+00:00');
CREATE TABLE draws (
	batch_id INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	sample_id INTEGER NOT NULL, 
	race_key DOUBLE NOT NULL, 
	weight DOUBLE, 
	reported BOOLEAN DEFAULT 0 NOT NULL, 
	PRIMARY KEY (batch_id, position)
)
 WITHOUT ROWID

;
INSERT INTO "draws" VALUES(1,0,3,6.21673949271696162088e-03,19.00000001,0);
INSERT INTO "draws" VALUES(1,1,19,7.24225412253244864996e-03,6.00000001,0);
INSERT INTO "draws" VALUES(1,2,11,0.00934750863721454,7.00000001,0);
INSERT INTO "draws" VALUES(1,3,2,1.42162430011132379092e-02,16.00000001,0);
INSERT INTO "draws" VALUES(1,4,22,1.97950038155354259006e-02,5.00000001,0);
INSERT INTO "draws" VALUES(2,0,13,2.56629959465788405614e-02,4.00000001,0);
INSERT INTO "draws" VALUES(2,1,23,2.85438492671531672539e-02,5.00000001,0);
INSERT INTO "draws" VALUES(2,2,21,2.88991762836757690169e-02,5.00000001,0);
INSERT INTO "draws" VALUES(2,3,1,4.91641423996289281261e-02,10.00000001,0);
CREATE TABLE jobs (
	buffer_id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	owner TEXT, 
	lease_until TEXT, 
	last_started_at TEXT, 
	last_finished_at TEXT, 
	last_error TEXT, 
	PRIMARY KEY (buffer_id, name), 
	CONSTRAINT fk_jobs_buffer_id FOREIGN KEY(buffer_id) REFERENCES buffers (id)
);
CREATE TABLE metrics (
	buffer_id INTEGER NOT NULL, 
	iteration INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	value DOUBLE, 
	recorded_at TEXT NOT NULL, 
	PRIMARY KEY (buffer_id, iteration, name), 
	CONSTRAINT fk_metrics_buffer_id FOREIGN KEY(buffer_id) REFERENCES buffers (id)
);
INSERT INTO "metrics" VALUES(1,0,'loss',0.5,'2026-11-28T06:25:39.459+00:00');
CREATE TABLE pool (
	buffer_id INTEGER NOT NULL, 
	race_key DOUBLE NOT NULL, 
	sample_id INTEGER NOT NULL, 
	weight DOUBLE, 
	top BOOLEAN NOT NULL, 
	PRIMARY KEY (buffer_id, race_key, sample_id)
)
 WITHOUT ROWID

;
INSERT INTO "pool" VALUES(1,6.14383935921427801196e-02,16,15.00000001,1);
INSERT INTO "pool" VALUES(1,7.64682862801257801077e-02,20,9.00000001,1);
INSERT INTO "pool" VALUES(1,8.67456368981327219369e-02,5,12.00000001,1);
INSERT INTO "pool" VALUES(1,9.14079914916771651967e-02,9,17.00000001,1);
INSERT INTO "pool" VALUES(1,1.13192996125326614254e-01,17,11.00000001,1);
INSERT INTO "pool" VALUES(1,1.17368133683381253851e-01,15,18.00000001,1);
INSERT INTO "pool" VALUES(1,1.21955928391962828416e-01,18,13.00000001,1);
INSERT INTO "pool" VALUES(1,1.56580617535932054007e-01,14,8.00000001,1);
INSERT INTO "pool" VALUES(1,1.79971372963507098008e-01,6,14.00000001,1);
INSERT INTO "pool" VALUES(1,2.17146481666723706327e-01,7,5.00000001,1);
INSERT INTO "pool" VALUES(1,3.12880231995097124464e-01,10,2.00000001,1);
INSERT INTO "pool" VALUES(1,3.65732526919480827043e-01,4,3.00000001,1);
INSERT INTO "pool" VALUES(1,4.59163790847662900418e-01,8,1.00000001,1);
INSERT INTO "pool" VALUES(1,4.53422733047376945621e+07,12,1.0e-08,1);
CREATE TABLE predictors (
	buffer_id INTEGER NOT NULL, 
	version INTEGER NOT NULL, 
	iteration INTEGER NOT NULL, 
	state BLOB NOT NULL, 
	rows_trained INTEGER NOT NULL, 
	train_loss DOUBLE, 
	valid_loss DOUBLE, 
	metrics JSON NOT NULL, 
	trained_at TEXT NOT NULL, 
	worker_id TEXT NOT NULL, 
	PRIMARY KEY (buffer_id, version), 
	CONSTRAINT fk_predictors_buffer_id FOREIGN KEY(buffer_id) REFERENCES buffers (id)
);
INSERT INTO "predictors" VALUES(1,1,1,X'78000000000000007B2262696173223A7B226474797065223A22463332222C227368617065223A5B315D2C22646174615F6F666673657473223A5B302C345D7D2C22776569676874223A7B226474797065223A22463332222C227368617065223A5B312C315D2C22646174615F6F666673657473223A5B342C385D7D7D2020205E54093F0054F5BB',4,0.25,0.5,'{"valid_rank_correlation": 0.75}','2026-11-28T06:25:40.936+00:00','vm-4612-2164bc4d');
CREATE TABLE receipts (
	connection TEXT NOT NULL, 
	number INTEGER NOT NULL, 
	written_at TEXT NOT NULL, 
	PRIMARY KEY (connection)
);
CREATE TABLE samples (
	id INTEGER NOT NULL, 
	buffer_id INTEGER NOT NULL, 
	hash BLOB NOT NULL, 
	text TEXT NOT NULL, 
	payload BLOB, 
	codec TEXT NOT NULL, 
	source TEXT NOT NULL, 
	meta JSON, 
	queued BOOLEAN NOT NULL, 
	requeues INTEGER NOT NULL, 
	score DOUBLE, 
	score_version INTEGER, 
	scored_at TEXT, 
	reward DOUBLE, 
	rewarded_at TEXT, 
	created_at TEXT NOT NULL, 
	created_iteration INTEGER NOT NULL, 
	PRIMARY KEY (id), 
	CONSTRAINT uq_samples_buffer_id_hash UNIQUE (buffer_id, hash)
);
INSERT INTO "samples" VALUES(1,1,X'0CDC385320E1E5FB5D1BDC79E596AFF1','s10',NULL,'text','textbook',NULL,1,0,10.0,0,'2026-11-28T06:25:39.439+00:00',NULL,NULL,'2026-11-28T06:25:39.424+00:00',0);
INSERT INTO "samples" VALUES(2,1,X'0D8360399CE27CE9C89E1A9C8E4A1819','s16',NULL,'text','textbook',NULL,0,0,16.0,0,'2026-11-28T06:25:39.439+00:00',4.0,'2026-11-28T06:25:39.457+00:00','2026-11-28T06:25:39.424+00:00',0);
INSERT INTO "samples" VALUES(3,1,X'0EB87C9DEB49F479DA7910F23AA95FBB','s19',NULL,'text','textbook',NULL,0,0,19.0,0,'2026-11-28T06:25:39.439+00:00',1.0,'2026-11-28T06:25:39.457+00:00','2026-11-28T06:25:39.424+00:00',0);
INSERT INTO "samples" VALUES(4,1,X'25E68ADCF845946F3908B9639FF35294','s3',NULL,'text','textbook',NULL,1,0,3.0,0,'2026-11-28T06:25:39.439+00:00',NULL,NULL,'2026-11-28T06:25:39.424+00:00',0);
INSERT INTO "samples" VALUES(5,1,X'2660151E0DFB090DC810A2884800E972','s12',NULL,'text','textbook',NULL,1,0,12.0,0,'2026-11-28T06:25:39.439+00:00',NULL,NULL,'2026-11-28T06:25:39.424+00:00',0);
INSERT INTO "samples" VALUES(6,1,X'48357FBA8F1544BB1C6C3FF9C5E320E8','s14',NULL,'text','textbook',NULL,1,0,14.0,0,'2026-11-28T06:25:39.439+00:00',NULL,NULL,'2026-11-28T06:25:39.424+00:00',0);
INSERT INTO "samples" VALUES(7,1,X'4B0F27F800694018DE4214D24749ADFC','s5',NULL,'text','textbook',NULL,1,0,5.0,0,'2026-11-28T06:25:39.439+00:00',NULL,NULL,'2026-11-28T06:25:39.424+00:00',0);
INSERT INTO "samples" VALUES(8,1,X'4FBCF5A9DC27FDA64879229052501555','s1',NULL,'text','textbook',NULL,1,0,1.0,0,'2026-11-28T06:25:39.439+00:00',NULL,NULL,'2026-11-28T06:25:39.424+00:00',0);
INSERT INTO "samples" VALUES(9,1,X'5E98966E95D3A2C83EEA44277F58FF86','s17',NULL,'text','textbook',NULL,1,0,17.0,0,'2026-11-28T06:25:39.439+00:00',NULL,NULL,'2026-11-28T06:25:39.424+00:00',0);
INSERT INTO "samples" VALUES(10,1,X'5F25BC4303E12B7ED3B7884E98547027','s2',NULL,'text','textbook',NULL,1,0,2.0,0,'2026-11-28T06:25:39.439+00:00',NULL,NULL,'2026-11-28T06:25:39.424+00:00',0);
INSERT INTO "samples" VALUES(11,1,X'77465F5140D1083BA59ED409F0A25BA1','s7',NULL,'text','textbook',NULL,0,0,7.0,0,'2026-11-28T06:25:39.439+00:00',NULL,'2026-11-28T06:25:39.457+00:00','2026-11-28T06:25:39.424+00:00',0);
INSERT INTO "samples" VALUES(12,1,X'79639C3F2C6365C8AA75DCD714B7BE09','s0',NULL,'text','textbook',NULL,1,0,0.0,0,'2026-11-28T06:25:39.439+00:00',NULL,NULL,'2026-11-28T06:25:39.424+00:00',0);
INSERT INTO "samples" VALUES(13,1,X'7BEBADE95985177DF635128FECD99363','s4',NULL,'text','textbook',NULL,1,0,4.0,0,'2026-11-28T06:25:39.439+00:00',NULL,NULL,'2026-11-28T06:25:39.424+00:00',0);
INSERT INTO "samples" VALUES(14,1,X'7E8CD06CB6F980A295160840A24AEA8E','s8',NULL,'text','textbook',NULL,1,0,8.0,0,'2026-11-28T06:25:39.439+00:00',NULL,NULL,'2026-11-28T06:25:39.424+00:00',0);
INSERT INTO "samples" VALUES(15,1,X'81BE9C2241CCFEB9791FF211D82C02B6','s18',NULL,'text','textbook',NULL,1,0,18.0,0,'2026-11-28T06:25:39.439+00:00',NULL,NULL,'2026-11-28T06:25:39.424+00:00',0);
INSERT INTO "samples" VALUES(16,1,X'8CE36007E27BC067505B1A0BD347D050','s15',NULL,'text','textbook',NULL,1,0,15.0,0,'2026-11-28T06:25:39.439+00:00',NULL,NULL,'2026-11-28T06:25:39.424+00:00',0);
INSERT INTO "samples" VALUES(17,1,X'952D06C5A93A3880908ED23DFC8E3165','s11',NULL,'text','textbook',NULL,1,0,11.0,0,'2026-11-28T06:25:39.439+00:00',NULL,NULL,'2026-11-28T06:25:39.424+00:00',0);
INSERT INTO "samples" VALUES(18,1,X'9A56624BAF043897F4CEA2034993E70B','s13',NULL,'text','textbook',NULL,1,0,13.0,0,'2026-11-28T06:25:39.439+00:00',NULL,NULL,'2026-11-28T06:25:39.424+00:00',0);
INSERT INTO "samples" VALUES(19,1,X'E06DA5C74348259F6CC22C4B7EEBCC0D','s6',NULL,'text','textbook',NULL,0,0,6.0,0,'2026-11-28T06:25:39.439+00:00',2.0,'2026-11-28T06:25:39.457+00:00','2026-11-28T06:25:39.424+00:00',0);
INSERT INTO "samples" VALUES(20,1,X'FFDFEE9E483E0D8111DCA2537AC662A8','s9',NULL,'text','textbook',NULL,1,0,9.0,0,'2026-11-28T06:25:39.439+00:00',NULL,NULL,'2026-11-28T06:25:39.424+00:00',0);
INSERT INTO "samples" VALUES(21,1,X'05FC3D100167ED75600CE7BB0809AA4E','(1, 2)',X'D81B83657475706C650102','cbor','arrays','{"note": "mixed"}',1,0,5.0,0,'2026-11-28T06:25:39.439+00:00',NULL,NULL,'2026-11-28T06:25:39.431+00:00',0);
INSERT INTO "samples" VALUES(22,1,X'42307D740A6B445525CFA94ACB248003','Tensor(float32, (1,): 1.5)',X'D81B846674656E736F7267666C6F617433328101440000C03F','cbor','arrays','{"note": "mixed"}',0,0,5.0,0,'2026-11-28T06:25:39.440+00:00',5.0,'2026-11-28T06:25:39.457+00:00','2026-11-28T06:25:39.431+00:00',0);
INSERT INTO "samples" VALUES(23,1,X'B62723D2F3A4251C3BA000B767B3123F','ndarray(float64, (3,): 0 1 2)',X'D81B8465617272617967666C6F61743634810358180000000000000000000000000000F03F0000000000000040','cbor','arrays','{"note": "mixed"}',1,0,5.0,0,'2026-11-28T06:25:39.440+00:00',NULL,NULL,'2026-11-28T06:25:39.431+00:00',0);
INSERT INTO "samples" VALUES(24,1,X'F857A49CFCDDA70881A7B1ED0DF6DF55','s100',NULL,'text','literature',NULL,0,0,NULL,NULL,NULL,9.0,'2026-11-28T06:25:40.939+00:00','2026-11-28T06:25:40.937+00:00',1);
CREATE TABLE sqlbuffer_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT sqlbuffer_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "sqlbuffer_version" VALUES('0001');
CREATE TABLE workers (
	buffer_id INTEGER NOT NULL, 
	id TEXT NOT NULL, 
	host TEXT NOT NULL, 
	pid INTEGER NOT NULL, 
	process_started_at DOUBLE NOT NULL, 
	created_at TEXT NOT NULL, 
	heartbeat_at TEXT NOT NULL, 
	clock DOUBLE NOT NULL, 
	batches INTEGER NOT NULL, 
	iterations INTEGER NOT NULL, 
	added INTEGER NOT NULL, 
	recorded INTEGER NOT NULL, 
	requeued INTEGER NOT NULL, 
	drawn INTEGER NOT NULL, 
	settled INTEGER NOT NULL, 
	released INTEGER NOT NULL, 
	removed INTEGER NOT NULL, 
	refused INTEGER NOT NULL, 
	unscored INTEGER NOT NULL, 
	unscorable INTEGER NOT NULL, 
	measured INTEGER NOT NULL, 
	failed INTEGER NOT NULL, 
	PRIMARY KEY (buffer_id, id), 
	CONSTRAINT fk_workers_buffer_id FOREIGN KEY(buffer_id) REFERENCES buffers (id)
);
INSERT INTO "workers" VALUES(1,'ledger','',0,0.0,'2026-11-28T06:25:39.416+00:00','2026-11-28T06:25:39.416+00:00',0.0,0,0,0,0,0,0,0,0,0,0,0,0,0,0);
INSERT INTO "workers" VALUES(1,'vm-4612-2164bc4d','vm/a6d8388b',4612,1795847137.05,'2026-11-28T06:25:39.428+00:00','2026-11-28T06:25:40.941+00:00',4.91641423996289281261e-02,2,1,23,1,0,9,5,0,0,0,0,0,5,1);
CREATE INDEX ix_samples_reward ON samples (buffer_id, reward, id) WHERE reward IS NOT NULL;
CREATE INDEX ix_pool_top ON pool (buffer_id, weight, sample_id) WHERE top = 1;
CREATE INDEX ix_pool_unscored ON pool (buffer_id, sample_id) WHERE weight IS NULL;
CREATE INDEX ix_batches_open ON batches (buffer_id, worker_id) WHERE settled_at IS NULL AND released_at IS NULL;
CREATE INDEX ix_batches_iteration ON batches (buffer_id, iteration);
CREATE VIEW buffer_overview AS
        SELECT
            b.name AS buffer,
            b.kind,
            b.mode,
            sum(w.iterations) AS iteration,
            sum(w.added + w.requeued - w.removed
                - CASE b.mode WHEN 'consume' THEN w.drawn - w.released ELSE 0 END) AS waiting,
            sum(w.unscored) AS unscored,
            sum(w.unscorable) AS unscorable,
            sum(w.added + w.recorded) AS stored,
            sum(w.drawn - w.released - w.settled) AS claimed,
            sum(w.measured) AS measured,
            sum(w.failed) AS failed,
            (SELECT max(s.reward) FROM samples AS s
             WHERE s.buffer_id = b.id AND s.reward IS NOT NULL) AS best_reward,
            b.score_version,
            b.created_at,
            max(w.heartbeat_at) AS seen_at
        FROM buffers AS b
        LEFT JOIN workers AS w ON w.buffer_id = b.id
        GROUP BY b.id, b.name, b.kind, b.mode, b.score_version, b.created_at;
CREATE VIEW sample_overview AS
        SELECT
            b.name AS buffer,
            s.id,
            s.text,
            s.source,
            s.queued,
            s.score,
            (SELECT max(p.version) FROM predictors AS p
             WHERE p.buffer_id = s.buffer_id AND p.version <= s.score_version) AS predictor,
            s.reward,
            s.created_iteration,
            s.created_at,
            s.scored_at,
            s.rewarded_at
        FROM samples AS s
        JOIN buffers AS b ON b.id = s.buffer_id;
CREATE VIEW batch_overview AS
        SELECT
            b.name AS buffer,
            t.id,
            t.iteration,
            t.size,
            CASE
                WHEN t.settled_at IS NOT NULL THEN 'settled'
                WHEN t.released_at IS NOT NULL THEN 'released'
                ELSE 'open'
            END AS state,
            (SELECT avg(s.reward) FROM draws AS d
             JOIN samples AS s ON s.id = d.sample_id
             WHERE d.batch_id = t.id) AS mean_reward,
            t.worker_id,
            t.drawn_at,
            t.settled_at,
            t.released_at
        FROM batches AS t
        JOIN buffers AS b ON b.id = t.buffer_id;
CREATE VIEW draw_overview AS
        SELECT
            b.name AS buffer,
            t.iteration,
            t.id AS batch_id,
            d.position,
            d.sample_id,
            s.text,
            s.source,
            d.weight,
            s.score,
            s.reward,
            t.drawn_at
        FROM draws AS d
        JOIN batches AS t ON t.id = d.batch_id
        JOIN buffers AS b ON b.id = t.buffer_id
        JOIN samples AS s ON s.id = d.sample_id;
COMMIT;
