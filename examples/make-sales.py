#!/usr/bin/env python3
"""Writes examples/sales.csv: invented sales of a café over four weeks. The same rows every time."""
import csv
import datetime
import random
import sys

ROWS = 400
FIRST_DAY = datetime.date(2026, 3, 2)  # a Monday
ITEMS = {  # price in cents, how often it is bought, before noon and after
    "espresso": (220, 9, 6), "cappuccino": (340, 14, 6), "filter coffee": (280, 8, 4),
    "tea": (260, 4, 7), "croissant": (250, 9, 1), "cheesecake": (420, 1, 8),
    "sandwich": (560, 2, 7), "lemonade": (330, 1, 6),
}
PAYMENTS = {"card": 7, "cash": 2, "app": 1}


def main():
    rng = random.Random(20260302)
    rows = []
    for _ in range(ROWS):
        day = rng.choices(range(28), [3 if n % 7 >= 5 else 2 for n in range(28)])[0]
        hour = rng.choices(range(7, 19), [3, 8, 9, 6, 4, 6, 7, 4, 5, 6, 4, 2])[0]
        weights = [w[1] if hour < 12 else w[2] for w in ITEMS.values()]
        item = rng.choices(list(ITEMS), weights)[0]
        time = datetime.datetime.combine(FIRST_DAY + datetime.timedelta(days=day),
                                         datetime.time(hour, rng.randrange(60)))
        rows.append([time.isoformat(timespec="minutes"), item, rng.choices([1, 2, 3], [7, 2, 1])[0],
                     f"{ITEMS[item][0] / 100:.2f}",
                     rng.choices(list(PAYMENTS), list(PAYMENTS.values()))[0]])
    rows.sort()
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(["time", "item", "quantity", "price", "payment"])
    out.writerows(rows)


if __name__ == "__main__":
    main()
