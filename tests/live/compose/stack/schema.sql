CREATE TABLE IF NOT EXISTS done (word text, length int, worker text);
