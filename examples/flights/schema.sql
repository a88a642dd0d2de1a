-- Flights out of New York City: five tables, column for column as in the CSV files, and one of
-- our own. The types and lengths hold the slice in this folder and the whole year alike.

CREATE TABLE airlines (
  carrier STRING(2) NOT NULL,
  name    STRING(64) NOT NULL,
) PRIMARY KEY (carrier);

-- A flight lives with its airline: an airline's row and all its flights are one directory, kept
-- next to each other and moved together, and a flight without its airline is refused.
-- dep_time, arr_time and the scheduled ones are local times of day as HHMM (517 is 5:17);
-- cancelled flights have none. time_hour is the scheduled hour of departure in UTC.
CREATE TABLE flights (
  carrier        STRING(2) NOT NULL,
  flight         INT64 NOT NULL,
  origin         STRING(3) NOT NULL,
  time_hour      TIMESTAMP NOT NULL,
  year           INT64 NOT NULL,
  month          INT64 NOT NULL,
  day            INT64 NOT NULL,
  dep_time       INT64,
  sched_dep_time INT64 NOT NULL,
  dep_delay      INT64,
  arr_time       INT64,
  sched_arr_time INT64 NOT NULL,
  arr_delay      INT64,
  tailnum        STRING(6),
  dest           STRING(3) NOT NULL,
  air_time       INT64,
  distance       INT64 NOT NULL,
  hour           INT64 NOT NULL,
  minute         INT64 NOT NULL,
) PRIMARY KEY (carrier, flight, origin, time_hour),
  INTERLEAVE IN PARENT airlines ON DELETE CASCADE;

-- Not in the data: a small table to change in the tour. One row per airline, in its directory.
CREATE TABLE loyalty (
  carrier STRING(2) NOT NULL,
  points  INT64 NOT NULL,
) PRIMARY KEY (carrier),
  INTERLEAVE IN PARENT airlines ON DELETE CASCADE;

CREATE TABLE airports (
  faa   STRING(3) NOT NULL,
  name  STRING(64) NOT NULL,
  lat   FLOAT64 NOT NULL,
  lon   FLOAT64 NOT NULL,
  alt   INT64 NOT NULL,
  tz    INT64 NOT NULL,
  dst   STRING(1) NOT NULL,
  tzone STRING(32),
) PRIMARY KEY (faa);

CREATE TABLE planes (
  tailnum      STRING(6) NOT NULL,
  year         INT64,
  type         STRING(32) NOT NULL,
  manufacturer STRING(32) NOT NULL,
  model        STRING(32) NOT NULL,
  engines      INT64 NOT NULL,
  seats        INT64 NOT NULL,
  speed        INT64,
  engine       STRING(16) NOT NULL,
) PRIMARY KEY (tailnum);

CREATE TABLE weather (
  origin     STRING(3) NOT NULL,
  time_hour  TIMESTAMP NOT NULL,
  year       INT64 NOT NULL,
  month      INT64 NOT NULL,
  day        INT64 NOT NULL,
  hour       INT64 NOT NULL,
  temp       FLOAT64,
  dewp       FLOAT64,
  humid      FLOAT64,
  wind_dir   INT64,
  wind_speed FLOAT64,
  wind_gust  FLOAT64,
  precip     FLOAT64 NOT NULL,
  pressure   FLOAT64,
  visib      FLOAT64 NOT NULL,
) PRIMARY KEY (origin, time_hour);
