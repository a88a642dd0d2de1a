-- A guided tour of two weeks of flights out of New York City, January 2013.
-- It can be run again: the statements that write put the rows back first.

SELECT '1. What is here' AS step;

SELECT 'airlines' AS table_name, COUNT(*) AS row_count FROM airlines
UNION ALL SELECT 'airports', COUNT(*) FROM airports
UNION ALL SELECT 'planes', COUNT(*) FROM planes
UNION ALL SELECT 'weather', COUNT(*) FROM weather
UNION ALL SELECT 'flights', COUNT(*) FROM flights
ORDER BY row_count;

SELECT '2. One flight, by its whole key: no scan, one group is asked' AS step;

SELECT carrier, flight, origin, dest, dep_time, dep_delay, tailnum
FROM flights
WHERE carrier = 'AA' AND flight = 1 AND origin = 'JFK'
  AND time_hour = TIMESTAMP '2013-01-01T14:00:00Z';

SELECT '3. One airline, by a prefix of the key: its flights lie next to it' AS step;

SELECT day, flight, origin, dest, dep_delay, arr_delay
FROM flights
WHERE carrier = 'HA'
ORDER BY day
LIMIT 5;

SELECT '4. Who flies most, and how late' AS step;

SELECT a.name, COUNT(*) AS flights,
       ROUND(AVG(f.dep_delay), 1) AS mean_delay,
       SUM(CASE WHEN f.dep_time IS NULL THEN 1 ELSE 0 END) AS cancelled
FROM flights AS f
JOIN airlines AS a ON a.carrier = f.carrier
GROUP BY a.name
ORDER BY flights DESC, a.name
LIMIT 8;

SELECT '5. Which makers of aeroplanes: some tail numbers have no plane, so not every flight' AS step;

SELECT p.manufacturer, COUNT(*) AS flights, MAX(p.seats) AS most_seats,
       ROUND(AVG(f.distance), 0) AS mean_miles
FROM flights AS f
JOIN planes AS p ON p.tailnum = f.tailnum
GROUP BY p.manufacturer
HAVING COUNT(*) > 100
ORDER BY flights DESC, p.manufacturer;

SELECT '6. Where to: the furthest destinations, and those that no airport is known for' AS step;

SELECT f.dest, ap.name, MAX(f.distance) AS miles, COUNT(*) AS flights
FROM flights AS f
JOIN airports AS ap ON ap.faa = f.dest
GROUP BY f.dest, ap.name
ORDER BY miles DESC, f.dest
LIMIT 5;

SELECT f.dest, COUNT(*) AS flights
FROM flights AS f
LEFT JOIN airports AS ap ON ap.faa = f.dest
WHERE ap.faa IS NULL
GROUP BY f.dest
ORDER BY flights DESC;

SELECT '7. Does the weather matter: delay by visibility at the hour of departure' AS step;

SELECT CASE WHEN w.visib < 2 THEN 'a: under 2 miles'
            WHEN w.visib < 6 THEN 'b: 2 to 6 miles'
            ELSE 'c: clear' END AS visibility,
       COUNT(*) AS flights,
       ROUND(AVG(f.dep_delay), 1) AS mean_delay,
       ROUND(AVG(w.wind_speed), 1) AS mean_wind_mph
FROM flights AS f
JOIN weather AS w ON w.origin = f.origin AND w.time_hour = f.time_hour
GROUP BY visibility
ORDER BY visibility;

SELECT '8. One transaction across two airlines' AS step;

-- Both rows change at one timestamp, or neither does, whichever groups the airlines live in.
BEGIN;
INSERT OR UPDATE INTO loyalty (carrier, points) VALUES ('AA', 1000), ('UA', 1000);
COMMIT;
SHOW VARIABLE COMMIT_TIMESTAMP;
\set before_ts

BEGIN;
UPDATE loyalty SET points = points - 250 WHERE carrier = 'AA';
UPDATE loyalty SET points = points + 250 WHERE carrier = 'UA';
COMMIT;
SHOW VARIABLE COMMIT_TIMESTAMP;

SELECT '9. Now, and before: every version since then is still there to read' AS step;

SELECT a.name, l.points FROM loyalty AS l JOIN airlines AS a ON a.carrier = l.carrier ORDER BY a.name;

-- Reads until further notice see the state at the first transaction's commit timestamp.
SET READ_ONLY_STALENESS = 'READ_TIMESTAMP :{before_ts}';
SELECT a.name, l.points FROM loyalty AS l JOIN airlines AS a ON a.carrier = l.carrier ORDER BY a.name;
SET READ_ONLY_STALENESS = 'STRONG';

-- And what is refused: a child without its parent. Try it at the prompt:
--   INSERT INTO loyalty (carrier, points) VALUES ('ZZ', 1);

SELECT 'That was the tour. The tables are yours: make demo opens a prompt.' AS step;
