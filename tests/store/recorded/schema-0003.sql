BEGIN TRANSACTION;
CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY);
INSERT INTO "alembic_version" VALUES('0003');
CREATE TABLE audit (
	sequence BIGINT NOT NULL, 
	data TEXT NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	PRIMARY KEY (sequence)
);
CREATE TABLE changes (
	revision BIGINT NOT NULL, 
	type VARCHAR(8) NOT NULL, 
	kind VARCHAR(63) NOT NULL, 
	namespace VARCHAR(63) NOT NULL, 
	name VARCHAR(253) NOT NULL, 
	origin VARCHAR(255) NOT NULL, 
	data TEXT NOT NULL, 
	previous TEXT NOT NULL, recorded_at FLOAT DEFAULT 0 NOT NULL, 
	PRIMARY KEY (revision)
);
INSERT INTO "changes" VALUES(1,'ADDED','Cloud','','harbor','','{"apiVersion":"roost.edge/v1","kind":"Cloud","metadata":{"name":"harbor","uid":"4170d959-9bc8-4fb6-b444-d418974f8645","creationTimestamp":"2026-11-20T08:00:07Z","generation":1},"spec":{"systemMode":"simplex","description":"","location":"","contact":""},"status":{"version":"","storeId":"","upper":"","upperConnected":false,"hosts":{},"alarms":{},"conditions":[]}}','',0.0);
INSERT INTO "changes" VALUES(2,'ADDED','Host','harbor','worker-0','','{"apiVersion":"roost.edge/v1","kind":"Host","metadata":{"name":"worker-0","namespace":"harbor","uid":"456a76ab-aad0-4e7f-b310-1beb32f706ac","creationTimestamp":"2026-11-20T08:00:14Z","generation":1},"spec":{"administrativeState":"locked","forceLock":false,"personalities":["controller","worker"],"interfaces":[],"thresholds":{},"location":""},"status":{"administrative":"locked","operational":"disabled","availability":"offline","task":"","connected":false,"connectionChangedAt":"","observedGeneration":0,"conditions":[],"inventory":null,"inventoryObservedAt":"","readings":[],"agent":{}}}','',0.0);
INSERT INTO "changes" VALUES(3,'ADDED','Host','harbor','worker-1','','{"apiVersion":"roost.edge/v1","kind":"Host","metadata":{"name":"worker-1","namespace":"harbor","uid":"4b44d104-cb0b-45f6-951d-74a0f232b944","creationTimestamp":"2026-11-20T08:00:21Z","generation":1},"spec":{"administrativeState":"locked","forceLock":false,"personalities":["controller","worker"],"interfaces":[],"thresholds":{},"location":""},"status":{"administrative":"locked","operational":"disabled","availability":"offline","task":"","connected":false,"connectionChangedAt":"","observedGeneration":0,"conditions":[],"inventory":null,"inventoryObservedAt":"","readings":[],"agent":{}}}','',0.0);
INSERT INTO "changes" VALUES(4,'ADDED','Host','harbor','worker-2','','{"apiVersion":"roost.edge/v1","kind":"Host","metadata":{"name":"worker-2","namespace":"harbor","uid":"acd7157e-39e8-45e8-a20b-ad5ca82f9dcd","creationTimestamp":"2026-11-20T08:00:28Z","generation":1},"spec":{"administrativeState":"locked","forceLock":false,"personalities":["controller","worker"],"interfaces":[],"thresholds":{},"location":""},"status":{"administrative":"locked","operational":"disabled","availability":"offline","task":"","connected":false,"connectionChangedAt":"","observedGeneration":0,"conditions":[],"inventory":null,"inventoryObservedAt":"","readings":[],"agent":{}}}','',0.0);
INSERT INTO "changes" VALUES(5,'MODIFIED','Host','harbor','worker-0','','{"apiVersion":"roost.edge/v1","kind":"Host","metadata":{"name":"worker-0","namespace":"harbor","generation":2,"uid":"456a76ab-aad0-4e7f-b310-1beb32f706ac","creationTimestamp":"2026-11-20T08:00:14Z"},"spec":{"administrativeState":"locked","forceLock":false,"personalities":["controller","worker"],"interfaces":[],"thresholds":{},"location":"rack 4, Ærø Nr. 3 “north”"},"status":{"administrative":"locked","operational":"disabled","availability":"offline","task":"","connected":false,"connectionChangedAt":"","observedGeneration":0,"conditions":[],"inventory":null,"inventoryObservedAt":"","readings":[],"agent":{}}}','{"apiVersion":"roost.edge/v1","kind":"Host","metadata":{"name":"worker-0","namespace":"harbor","uid":"456a76ab-aad0-4e7f-b310-1beb32f706ac","creationTimestamp":"2026-11-20T08:00:14Z","generation":1},"spec":{"administrativeState":"locked","forceLock":false,"personalities":["controller","worker"],"interfaces":[],"thresholds":{},"location":""},"status":{"administrative":"locked","operational":"disabled","availability":"offline","task":"","connected":false,"connectionChangedAt":"","observedGeneration":0,"conditions":[],"inventory":null,"inventoryObservedAt":"","readings":[],"agent":{}}}',0.0);
INSERT INTO "changes" VALUES(6,'MODIFIED','Host','harbor','worker-0','','{"apiVersion":"roost.edge/v1","kind":"Host","metadata":{"name":"worker-0","namespace":"harbor","generation":3,"uid":"456a76ab-aad0-4e7f-b310-1beb32f706ac","creationTimestamp":"2026-11-20T08:00:14Z"},"spec":{"administrativeState":"locked","forceLock":false,"personalities":["controller","worker"],"interfaces":[],"thresholds":{},"location":"rack 4, Ærø Nr. 3 “north”","administrative":"unlocked"},"status":{"administrative":"locked","operational":"disabled","availability":"offline","task":"","connected":false,"connectionChangedAt":"","observedGeneration":0,"conditions":[],"inventory":null,"inventoryObservedAt":"","readings":[],"agent":{}}}','{"apiVersion":"roost.edge/v1","kind":"Host","metadata":{"name":"worker-0","namespace":"harbor","generation":2,"uid":"456a76ab-aad0-4e7f-b310-1beb32f706ac","creationTimestamp":"2026-11-20T08:00:14Z"},"spec":{"administrativeState":"locked","forceLock":false,"personalities":["controller","worker"],"interfaces":[],"thresholds":{},"location":"rack 4, Ærø Nr. 3 “north”"},"status":{"administrative":"locked","operational":"disabled","availability":"offline","task":"","connected":false,"connectionChangedAt":"","observedGeneration":0,"conditions":[],"inventory":null,"inventoryObservedAt":"","readings":[],"agent":{}}}',0.0);
INSERT INTO "changes" VALUES(7,'MODIFIED','Host','harbor','worker-1','','{"apiVersion":"roost.edge/v1","kind":"Host","metadata":{"name":"worker-1","namespace":"harbor","generation":2,"uid":"4b44d104-cb0b-45f6-951d-74a0f232b944","creationTimestamp":"2026-11-20T08:00:21Z"},"spec":{"administrativeState":"locked","forceLock":false,"personalities":["controller","worker"],"interfaces":[],"thresholds":{},"location":"","administrative":"unlocked"},"status":{"administrative":"locked","operational":"disabled","availability":"offline","task":"","connected":false,"connectionChangedAt":"","observedGeneration":0,"conditions":[],"inventory":null,"inventoryObservedAt":"","readings":[],"agent":{}}}','{"apiVersion":"roost.edge/v1","kind":"Host","metadata":{"name":"worker-1","namespace":"harbor","uid":"4b44d104-cb0b-45f6-951d-74a0f232b944","creationTimestamp":"2026-11-20T08:00:21Z","generation":1},"spec":{"administrativeState":"locked","forceLock":false,"personalities":["controller","worker"],"interfaces":[],"thresholds":{},"location":""},"status":{"administrative":"locked","operational":"disabled","availability":"offline","task":"","connected":false,"connectionChangedAt":"","observedGeneration":0,"conditions":[],"inventory":null,"inventoryObservedAt":"","readings":[],"agent":{}}}',0.0);
INSERT INTO "changes" VALUES(8,'ADDED','FirewallPolicy','harbor','ssh','','{"apiVersion":"roost.edge/v1","kind":"FirewallPolicy","metadata":{"name":"ssh","namespace":"harbor","labels":{"a.b/c":"d"},"uid":"73185061-7103-4ae3-a627-6fdd47b8909b","creationTimestamp":"2026-11-20T08:00:56Z","generation":1},"spec":{"networks":["oam"],"rules":[],"defaultIngress":"deny","defaultEgress":"allow","order":1000,"hosts":{},"subclouds":null},"status":{"observedGeneration":0,"hosts":0,"applied":0,"subclouds":0,"inSync":0,"conditions":[]}}','',0.0);
INSERT INTO "changes" VALUES(9,'DELETED','Host','harbor','worker-2','','{"apiVersion":"roost.edge/v1","kind":"Host","metadata":{"name":"worker-2","namespace":"harbor","uid":"acd7157e-39e8-45e8-a20b-ad5ca82f9dcd","creationTimestamp":"2026-11-20T08:00:28Z","generation":1},"spec":{"administrativeState":"locked","forceLock":false,"personalities":["controller","worker"],"interfaces":[],"thresholds":{},"location":""},"status":{"administrative":"locked","operational":"disabled","availability":"offline","task":"","connected":false,"connectionChangedAt":"","observedGeneration":0,"conditions":[],"inventory":null,"inventoryObservedAt":"","readings":[],"agent":{}}}','{"apiVersion":"roost.edge/v1","kind":"Host","metadata":{"name":"worker-2","namespace":"harbor","uid":"acd7157e-39e8-45e8-a20b-ad5ca82f9dcd","creationTimestamp":"2026-11-20T08:00:28Z","generation":1},"spec":{"administrativeState":"locked","forceLock":false,"personalities":["controller","worker"],"interfaces":[],"thresholds":{},"location":""},"status":{"administrative":"locked","operational":"disabled","availability":"offline","task":"","connected":false,"connectionChangedAt":"","observedGeneration":0,"conditions":[],"inventory":null,"inventoryObservedAt":"","readings":[],"agent":{}}}',0.0);
INSERT INTO "changes" VALUES(10,'ADDED','Host','harbor','worker-2','','{"apiVersion":"roost.edge/v1","kind":"Host","metadata":{"name":"worker-2","namespace":"harbor","uid":"c795fae9-a3c1-4690-baaf-a05bac486713","creationTimestamp":"2026-11-20T08:01:10Z","generation":1},"spec":{"administrativeState":"locked","forceLock":false,"personalities":["controller","worker"],"interfaces":[],"thresholds":{},"location":"new one"},"status":{"administrative":"locked","operational":"disabled","availability":"offline","task":"","connected":false,"connectionChangedAt":"","observedGeneration":0,"conditions":[],"inventory":null,"inventoryObservedAt":"","readings":[],"agent":{}}}','',0.0);
INSERT INTO "changes" VALUES(11,'ADDED','Subcloud','','pier','up','{"apiVersion":"roost.edge/v1","kind":"Subcloud","metadata":{"name":"pier","uid":"u-1","generation":4},"spec":{"unknownLater":{"kept":[1,2.5,null]}}}','',0.0);
INSERT INTO "changes" VALUES(12,'ADDED','LogEntry','harbor','log.0000000001','','{"apiVersion":"roost.edge/v1","kind":"LogEntry","metadata":{"name":"log.0000000001","namespace":"harbor","uid":"6fa2bb3f-7d01-4094-b0ae-fbce0e8e5ac1","creationTimestamp":"2026-11-20T08:01:24Z","generation":1},"status":{"time":"2026-11-20T08:01:24.000Z","source":"harbor","sequence":1,"severity":"info","event":"state","alarmId":"","entity":"","text":"something 0; it''s \"quoted\""}}','',0.0);
INSERT INTO "changes" VALUES(13,'ADDED','LogEntry','harbor','log.0000000002','','{"apiVersion":"roost.edge/v1","kind":"LogEntry","metadata":{"name":"log.0000000002","namespace":"harbor","uid":"8cc1e1ec-dd26-49bc-b18f-d734c238007b","creationTimestamp":"2026-11-20T08:01:31Z","generation":1},"status":{"time":"2026-11-20T08:01:31.000Z","source":"harbor","sequence":2,"severity":"info","event":"state","alarmId":"","entity":"","text":"something 1; it''s \"quoted\""}}','',0.0);
INSERT INTO "changes" VALUES(14,'ADDED','LogEntry','harbor','log.0000000003','','{"apiVersion":"roost.edge/v1","kind":"LogEntry","metadata":{"name":"log.0000000003","namespace":"harbor","uid":"ac4728ec-b936-4d36-8203-53c027c4bdc4","creationTimestamp":"2026-11-20T08:01:38Z","generation":1},"status":{"time":"2026-11-20T08:01:38.000Z","source":"harbor","sequence":3,"severity":"info","event":"state","alarmId":"","entity":"","text":"something 2; it''s \"quoted\""}}','',0.0);
CREATE TABLE counters (
	name VARCHAR(255) NOT NULL, 
	value BIGINT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "counters" VALUES('revision',14);
INSERT INTO "counters" VALUES('log:harbor',3);
CREATE TABLE cursors (
	peer VARCHAR(255) NOT NULL, 
	store_id VARCHAR(64) NOT NULL, 
	revision BIGINT NOT NULL, 
	PRIMARY KEY (peer)
);
INSERT INTO "cursors" VALUES('host/harbor/worker-0','store-of-worker-0',41);
CREATE TABLE leases (
	name VARCHAR(255) NOT NULL, 
	holder VARCHAR(255) NOT NULL, 
	epoch BIGINT NOT NULL, 
	expires_at FLOAT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "leases" VALUES('controllers','node-a',1,1795161749.0);
CREATE TABLE links (
	node VARCHAR(255) NOT NULL, 
	process VARCHAR(255) NOT NULL, 
	session BIGINT NOT NULL, 
	changed BIGINT NOT NULL, 
	state VARCHAR(8) NOT NULL, 
	since FLOAT NOT NULL, 
	version VARCHAR(255) NOT NULL, 
	address VARCHAR(255) NOT NULL, 
	certificate_expires_at VARCHAR(32) NOT NULL, 
	trouble TEXT NOT NULL, 
	PRIMARY KEY (node)
);
CREATE TABLE properties (
	name VARCHAR(255) NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "properties" VALUES('store-id','f008d00d-7bfa-4a0d-ad01-e57e3a2bfd6e');
INSERT INTO "properties" VALUES('link-refused:up','[]');
CREATE TABLE resources (
	kind VARCHAR(63) NOT NULL, 
	namespace VARCHAR(63) NOT NULL, 
	name VARCHAR(253) NOT NULL, 
	uid VARCHAR(64) NOT NULL, 
	revision BIGINT NOT NULL, 
	origin VARCHAR(255) NOT NULL, 
	data TEXT NOT NULL, 
	PRIMARY KEY (kind, namespace, name)
);
INSERT INTO "resources" VALUES('Cloud','','harbor','4170d959-9bc8-4fb6-b444-d418974f8645',1,'','{"apiVersion":"roost.edge/v1","kind":"Cloud","metadata":{"name":"harbor","uid":"4170d959-9bc8-4fb6-b444-d418974f8645","creationTimestamp":"2026-11-20T08:00:07Z","generation":1},"spec":{"systemMode":"simplex","description":"","location":"","contact":""},"status":{"version":"","storeId":"","upper":"","upperConnected":false,"hosts":{},"alarms":{},"conditions":[]}}');
INSERT INTO "resources" VALUES('Host','harbor','worker-0','456a76ab-aad0-4e7f-b310-1beb32f706ac',6,'','{"apiVersion":"roost.edge/v1","kind":"Host","metadata":{"name":"worker-0","namespace":"harbor","generation":3,"uid":"456a76ab-aad0-4e7f-b310-1beb32f706ac","creationTimestamp":"2026-11-20T08:00:14Z"},"spec":{"administrativeState":"locked","forceLock":false,"personalities":["controller","worker"],"interfaces":[],"thresholds":{},"location":"rack 4, Ærø Nr. 3 “north”","administrative":"unlocked"},"status":{"administrative":"locked","operational":"disabled","availability":"offline","task":"","connected":false,"connectionChangedAt":"","observedGeneration":0,"conditions":[],"inventory":null,"inventoryObservedAt":"","readings":[],"agent":{}}}');
INSERT INTO "resources" VALUES('Host','harbor','worker-1','4b44d104-cb0b-45f6-951d-74a0f232b944',7,'','{"apiVersion":"roost.edge/v1","kind":"Host","metadata":{"name":"worker-1","namespace":"harbor","generation":2,"uid":"4b44d104-cb0b-45f6-951d-74a0f232b944","creationTimestamp":"2026-11-20T08:00:21Z"},"spec":{"administrativeState":"locked","forceLock":false,"personalities":["controller","worker"],"interfaces":[],"thresholds":{},"location":"","administrative":"unlocked"},"status":{"administrative":"locked","operational":"disabled","availability":"offline","task":"","connected":false,"connectionChangedAt":"","observedGeneration":0,"conditions":[],"inventory":null,"inventoryObservedAt":"","readings":[],"agent":{}}}');
INSERT INTO "resources" VALUES('FirewallPolicy','harbor','ssh','73185061-7103-4ae3-a627-6fdd47b8909b',8,'','{"apiVersion":"roost.edge/v1","kind":"FirewallPolicy","metadata":{"name":"ssh","namespace":"harbor","labels":{"a.b/c":"d"},"uid":"73185061-7103-4ae3-a627-6fdd47b8909b","creationTimestamp":"2026-11-20T08:00:56Z","generation":1},"spec":{"networks":["oam"],"rules":[],"defaultIngress":"deny","defaultEgress":"allow","order":1000,"hosts":{},"subclouds":null},"status":{"observedGeneration":0,"hosts":0,"applied":0,"subclouds":0,"inSync":0,"conditions":[]}}');
INSERT INTO "resources" VALUES('Host','harbor','worker-2','c795fae9-a3c1-4690-baaf-a05bac486713',10,'','{"apiVersion":"roost.edge/v1","kind":"Host","metadata":{"name":"worker-2","namespace":"harbor","uid":"c795fae9-a3c1-4690-baaf-a05bac486713","creationTimestamp":"2026-11-20T08:01:10Z","generation":1},"spec":{"administrativeState":"locked","forceLock":false,"personalities":["controller","worker"],"interfaces":[],"thresholds":{},"location":"new one"},"status":{"administrative":"locked","operational":"disabled","availability":"offline","task":"","connected":false,"connectionChangedAt":"","observedGeneration":0,"conditions":[],"inventory":null,"inventoryObservedAt":"","readings":[],"agent":{}}}');
INSERT INTO "resources" VALUES('Subcloud','','pier','u-1',11,'up','{"apiVersion":"roost.edge/v1","kind":"Subcloud","metadata":{"name":"pier","uid":"u-1","generation":4},"spec":{"unknownLater":{"kept":[1,2.5,null]}}}');
INSERT INTO "resources" VALUES('LogEntry','harbor','log.0000000001','6fa2bb3f-7d01-4094-b0ae-fbce0e8e5ac1',12,'','{"apiVersion":"roost.edge/v1","kind":"LogEntry","metadata":{"name":"log.0000000001","namespace":"harbor","uid":"6fa2bb3f-7d01-4094-b0ae-fbce0e8e5ac1","creationTimestamp":"2026-11-20T08:01:24Z","generation":1},"status":{"time":"2026-11-20T08:01:24.000Z","source":"harbor","sequence":1,"severity":"info","event":"state","alarmId":"","entity":"","text":"something 0; it''s \"quoted\""}}');
INSERT INTO "resources" VALUES('LogEntry','harbor','log.0000000002','8cc1e1ec-dd26-49bc-b18f-d734c238007b',13,'','{"apiVersion":"roost.edge/v1","kind":"LogEntry","metadata":{"name":"log.0000000002","namespace":"harbor","uid":"8cc1e1ec-dd26-49bc-b18f-d734c238007b","creationTimestamp":"2026-11-20T08:01:31Z","generation":1},"status":{"time":"2026-11-20T08:01:31.000Z","source":"harbor","sequence":2,"severity":"info","event":"state","alarmId":"","entity":"","text":"something 1; it''s \"quoted\""}}');
INSERT INTO "resources" VALUES('LogEntry','harbor','log.0000000003','ac4728ec-b936-4d36-8203-53c027c4bdc4',14,'','{"apiVersion":"roost.edge/v1","kind":"LogEntry","metadata":{"name":"log.0000000003","namespace":"harbor","uid":"ac4728ec-b936-4d36-8203-53c027c4bdc4","creationTimestamp":"2026-11-20T08:01:38Z","generation":1},"status":{"time":"2026-11-20T08:01:38.000Z","source":"harbor","sequence":3,"severity":"info","event":"state","alarmId":"","entity":"","text":"something 2; it''s \"quoted\""}}');
CREATE TABLE steps (
	operation VARCHAR(64) NOT NULL, 
	number INTEGER NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	attempt INTEGER NOT NULL, 
	holder VARCHAR(255) NOT NULL, 
	lease_until FLOAT NOT NULL, 
	not_before FLOAT NOT NULL, 
	timeout FLOAT NOT NULL, 
	deadline FLOAT NOT NULL, 
	started_at VARCHAR(32) NOT NULL, 
	finished_at VARCHAR(32) NOT NULL, 
	message TEXT NOT NULL, 
	PRIMARY KEY (operation, number)
);
INSERT INTO "steps" VALUES('op-1',1,'lock','running',1,'x',1.5,0.0,60.0,99.25,'2026-11-20T08:00:00Z','','');
CREATE INDEX resources_by_origin ON resources (origin);
CREATE INDEX steps_by_state ON steps (state, not_before);
CREATE INDEX links_by_changed ON links (changed);
CREATE INDEX links_by_process ON links (process);
COMMIT;
