"""How far one case can be trusted: intervals, expected Dice, flags and prediction sets, by held-out cases."""
