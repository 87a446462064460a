"""The tests of evflow, in folders by cost. CONTRIBUTING.md says what belongs where."""
