"""Reads a table of sales, prints a summary and writes it as JSON.

    python3 analyse.py sales.csv report.json
"""
import collections
import csv
import datetime
import json
import statistics
import sys

WEEKDAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]


def read_sales(path):
    with open(path, newline="", encoding="utf-8") as f:
        for row in csv.DictReader(f):
            time = datetime.datetime.fromisoformat(row["time"])
            yield time, row["item"], int(row["quantity"]), float(row["price"]), row["payment"]


def main():
    source, target = sys.argv[1], sys.argv[2]
    by_item, by_day = collections.Counter(), collections.Counter()
    by_weekday, payments = collections.Counter(), collections.Counter()
    amounts = []
    for time, item, quantity, price, payment in read_sales(source):
        amount = quantity * price
        amounts.append(amount)
        by_item[item] += amount
        by_day[time.date().isoformat()] += amount
        by_weekday[WEEKDAYS[time.weekday()]] += amount
        payments[payment] += 1

    report = {
        "sales": len(amounts),
        "revenue": round(sum(amounts), 2),
        "median_sale": round(statistics.median(amounts), 2),
        "best_day": max(by_day, key=by_day.get),
        "daily_mean": round(statistics.mean(by_day.values()), 2),
        "daily_stdev": round(statistics.stdev(by_day.values()), 2),
        "card_share": round(payments["card"] / len(amounts), 3),
        "by_item": {item: round(value, 2) for item, value in by_item.most_common()},
    }
    with open(target, "w", encoding="utf-8") as f:
        json.dump(report, f, indent=2)

    print(f"{report['sales']} sales, {report['revenue']:.2f} in all, "
          f"median {report['median_sale']:.2f}, best day {report['best_day']}")
    scale = 40 / max(by_item.values())
    for item, value in by_item.most_common():
        print(f"  {item:<14} {value:8.2f} {'#' * round(value * scale)}")
    print("  " + "  ".join(f"{day} {by_weekday[day]:.0f}" for day in WEEKDAYS))


if __name__ == "__main__":
    main()
